use proptest::prelude::*;
use serde_json::json;

use super::*;

fn inet(host: &str, port: &str) -> MigrationAddress {
    MigrationAddress::Socket(SocketAddress::Inet(InetSocketAddress::new(host, port)))
}

/// A URI and its form in QMP, both ways.
#[track_caller]
fn check(uri: &str, json: serde_json::Value) {
    let address: MigrationAddress = uri.parse().unwrap();
    assert_eq!(serde_json::to_value(&address).unwrap(), json, "{uri}");
    let back: MigrationAddress = serde_json::from_value(json).unwrap();
    assert_eq!(back, address);
    assert_eq!(back.to_uri().as_deref(), Some(uri));
    assert_eq!(back.to_string(), uri);
    assert_eq!(back.scheme(), uri.split(':').next().unwrap());
}

#[track_caller]
fn refused(uri: &str, text: &str) {
    let error = uri.parse::<MigrationAddress>().unwrap_err();
    assert_eq!(error.to_string(), text, "{uri}");
}

#[test]
fn each_scheme() {
    check(
        "tcp:host:4444",
        json!({"transport": "socket", "type": "inet", "host": "host", "port": "4444"}),
    );
    check(
        "tcp:[::1]:4444",
        json!({"transport": "socket", "type": "inet", "host": "::1", "port": "4444"}),
    );
    check(
        "tcp::0,ipv4=off,to=9",
        json!({"transport": "socket", "type": "inet", "host": "", "port": "0", "to": 9, "ipv4": false}),
    );
    check(
        "unix:/run/vm,x:y",
        json!({"transport": "socket", "type": "unix", "path": "/run/vm,x:y"}),
    );
    check(
        "fd:3",
        json!({"transport": "socket", "type": "fd", "str": "3"}),
    );
    check(
        "vsock:2:99",
        json!({"transport": "socket", "type": "vsock", "cid": "2", "port": "99"}),
    );
    check(
        "exec:cat > x",
        json!({"transport": "exec", "args": ["/bin/sh", "-c", "cat > x"]}),
    );
    check(
        "rdma:host:1",
        json!({"transport": "rdma", "host": "host", "port": "1"}),
    );
    check(
        "file:/a:b,c",
        json!({"transport": "file", "filename": "/a:b,c", "offset": 0}),
    );
    check(
        "file:/a,offset=4096",
        json!({"transport": "file", "filename": "/a", "offset": 4096}),
    );
}

#[test]
fn options() {
    let address: MigrationAddress =
        "tcp:h:1,ipv4,ipv6=on,keep-alive=off,keep-alive-count=3,keep-alive-idle=4,keep-alive-interval=5,\
         mptcp=on,numeric=off,to=65535,"
            .parse()
            .unwrap();
    let MigrationAddress::Socket(SocketAddress::Inet(found)) = &address else {
        panic!("{address:?}");
    };
    let expected = InetSocketAddress {
        host: "h".to_owned(),
        port: "1".to_owned(),
        numeric: Some(false),
        to: Some(65535),
        ipv4: Some(true),
        ipv6: Some(true),
        keep_alive: Some(false),
        keep_alive_count: Some(3),
        keep_alive_idle: Some(4),
        keep_alive_interval: Some(5),
        mptcp: Some(true),
    };
    assert_eq!(*found, expected);
    assert_eq!(address.to_uri().unwrap().parse(), Ok(address));
}

// The texts were seen in answers of QEMU 11.1.3.
#[test]
fn refusals() {
    refused("tcp", "unknown migration protocol: tcp");
    refused("", "unknown migration protocol: ");
    refused("foo:1", "unknown migration protocol: foo:1");
    refused("tcp:", "error parsing address ''");
    refused("tcp:a", "error parsing address 'a'");
    refused("tcp:a:", "error parsing address 'a:'");
    refused("tcp:a:,to=1", "error parsing address 'a:,to=1'");
    refused("tcp:[::1:1", "error parsing IPv6 address '[::1:1'");
    refused("tcp:a:1,foo=1", "Invalid parameter 'foo'");
    refused("tcp:a:1,to=x", "Parameter 'to' expects a number");
    refused("tcp:a:1,to=65536", "Parameter 'to' expects a number");
    refused("tcp:a:1,ipv4=x", "Parameter 'ipv4' expects 'on' or 'off'");
    refused("unix:", "invalid Unix socket address");
    refused("fd:", "invalid file descriptor address");
    refused("vsock:1", "error parsing address '1'");
    refused(
        "file:/x,offset=12q",
        "file URI has bad offset 12q: Invalid argument",
    );
    let long = "1".repeat(33);
    refused(
        &format!("tcp:a:{long}"),
        &format!("error parsing address 'a:{long}'"),
    );
}

#[test]
fn what_no_uri_can_say() {
    let places = [
        json!({"transport": "exec", "args": ["cat"]}),
        json!({"transport": "exec", "args": []}),
        json!({"transport": "socket", "type": "unix", "path": "x", "abstract": true}),
        json!({"transport": "socket", "type": "inet", "host": "a,b", "port": "1"}),
    ];
    for place in places {
        let address: MigrationAddress = serde_json::from_value(place).unwrap();
        assert_eq!(address.to_uri(), None, "{address:?}");
        assert!(!address.to_string().is_empty());
    }
}

#[test]
fn one_main_channel() {
    let main = MigrationChannel::main(inet("a", "1"));
    let cpr = MigrationChannel {
        channel_type: ChannelType::Cpr,
        addr: MigrationAddress::unix("/x"),
    };
    let one = std::slice::from_ref(&main);
    assert_eq!(main_channel(None, Some(one)), Ok(inet("a", "1")));
    assert_eq!(main_channel(Some("tcp:a:1"), None), Ok(inet("a", "1")));
    assert_eq!(main_channel(Some("tcp:a:1"), Some(&[])), Ok(inet("a", "1")));
    let refused = [
        (main_channel(None, None), ChannelsError::NeitherOrBoth),
        (main_channel(None, Some(&[])), ChannelsError::NeitherOrBoth),
        (
            main_channel(Some("tcp:a:1"), Some(one)),
            ChannelsError::NeitherOrBoth,
        ),
        (
            main_channel(None, Some(&[main.clone(), main.clone()])),
            ChannelsError::SeveralMain,
        ),
        (
            main_channel(None, Some(&[main.clone(), cpr])),
            ChannelsError::Cpr,
        ),
        (
            main_channel(Some("x"), None),
            ChannelsError::Uri(AddressError::UnknownProtocol("x".to_owned())),
        ),
    ];
    for (found, expected) in refused {
        assert_eq!(found, Err(expected));
    }
    assert!(main.addr.has_several_channels());
    assert!(!MigrationAddress::exec("cat").has_several_channels());
}

proptest! {
    #[test]
    fn any_text_is_refused_or_comes_back(text in "(tcp|unix|fd|vsock|exec|file|rdma)?:?[a-z0-9:,=\\[\\].]{0,24}") {
        if let Ok(address) = text.parse::<MigrationAddress>() {
            let uri = address.to_uri().unwrap();
            prop_assert_eq!(uri.parse::<MigrationAddress>(), Ok(address.clone()));
            let json = serde_json::to_value(&address).unwrap();
            prop_assert_eq!(serde_json::from_value::<MigrationAddress>(json).unwrap(), address);
        }
    }
}
