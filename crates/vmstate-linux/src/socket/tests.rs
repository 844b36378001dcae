use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use super::*;

/// What a socket accepts when nobody reads.
fn accepted(mut writer: impl io::Write) -> usize {
    let data = vec![1; 1 << 20];
    let mut all = 0;
    loop {
        match writer.write(&data) {
            Ok(count) => all += count,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                return all;
            }
        }
        assert!(all < 256 << 20);
    }
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (reader, _) = listener.accept().unwrap();
    writer.set_nonblocking(true).unwrap();
    (writer, reader)
}

#[test]
fn a_limited_unix_socket_takes_less() {
    let (writer, _reader) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    let (limited, mut reader) = UnixStream::pair().unwrap();
    limited.set_nonblocking(true).unwrap();
    limit_unsent(&limited, 16 << 10).unwrap();
    limit_unread(&limited, 16 << 10).unwrap();
    let less = accepted(&limited);
    assert!(less < accepted(&writer), "{less}");
    assert!(less <= 64 << 10, "{less}");
    // It goes on, and nothing is lost.
    let mut all = vec![0; less];
    reader.read_exact(&mut all).unwrap();
    assert!(all.iter().all(|byte| *byte == 1));
    (&limited).write_all(b"more").unwrap();
    assert_eq!(least_round_trip(&limited).unwrap(), None);
}

#[test]
fn a_limited_tcp_connection_takes_less() {
    let (writer, _reader) = tcp();
    let (limited, reader) = tcp();
    limit_unsent(&limited, 16 << 10).unwrap();
    limit_unread(&reader, 64 << 10).unwrap();
    let (less, more) = (accepted(&limited), accepted(&writer));
    assert!(less < more, "{less} {more}");
    assert!(least_round_trip(&limited).unwrap().is_some());
}

#[test]
fn a_file_is_no_socket() {
    let file = std::fs::File::open("/dev/null").unwrap();
    for result in [limit_unsent(&file, 1), limit_unread(&file, 1)] {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    }
    least_round_trip(&file).unwrap_err();
}
