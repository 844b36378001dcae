//! What the commands of a migration take, as QEMU 11.1 declares it.

use crate::migration::{CAPABILITIES, MigrationStatus};
use crate::schema::{Member, Shape, Type, Variants};

const INET: Shape = Shape::of(&[
    Member::required("host", Type::String),
    Member::required("port", Type::String),
    Member::optional("numeric", Type::Bool),
    Member::optional("to", Type::U16),
    Member::optional("ipv4", Type::Bool),
    Member::optional("ipv6", Type::Bool),
    Member::optional("keep-alive", Type::Bool),
    Member::optional("keep-alive-count", Type::U32),
    Member::optional("keep-alive-idle", Type::U32),
    Member::optional("keep-alive-interval", Type::U32),
    Member::optional("mptcp", Type::Bool),
]);

const UNIX: Shape = Shape::of(&[
    Member::required("path", Type::String),
    Member::optional("abstract", Type::Bool),
    Member::optional("tight", Type::Bool),
]);

const VSOCK: Shape = Shape::of(&[
    Member::required("cid", Type::String),
    Member::required("port", Type::String),
]);

const FD: Shape = Shape::of(&[Member::required("str", Type::String)]);

pub(super) const FD_NAME: Shape = Shape::of(&[Member::required("fdname", Type::String)]);

const SOCKET: Shape = Shape {
    members: &[],
    variants: Some(Variants {
        tag: "type",
        branches: &[("inet", INET), ("unix", UNIX), ("vsock", VSOCK), ("fd", FD)],
    }),
};

const EXEC: Shape = Shape::of(&[Member::required("args", Type::List(&Type::String))]);

const FILE: Shape = Shape::of(&[
    Member::required("filename", Type::String),
    Member::required("offset", Type::U64),
]);

const ADDRESS: Shape = Shape {
    members: &[],
    variants: Some(Variants {
        tag: "transport",
        branches: &[
            ("socket", SOCKET),
            ("exec", EXEC),
            ("rdma", INET),
            ("file", FILE),
        ],
    }),
};

const CHANNEL: Shape = Shape::of(&[
    Member::required("channel-type", Type::Enum(&["main", "cpr"])),
    Member::required("addr", Type::Object(&ADDRESS)),
]);

const CHANNELS: Type = Type::List(&Type::Object(&CHANNEL));

pub(super) const MIGRATE: Shape = Shape::of(&[
    Member::optional("uri", Type::String),
    Member::optional("channels", CHANNELS),
    Member::optional("resume", Type::Bool),
]);

pub(super) const MIGRATE_INCOMING: Shape = Shape::of(&[
    Member::optional("uri", Type::String),
    Member::optional("channels", CHANNELS),
    Member::optional("exit-on-error", Type::Bool),
]);

pub(super) const MIGRATE_CONTINUE: Shape = Shape::of(&[Member::required(
    "state",
    Type::Enum(MigrationStatus::NAMES),
)]);

pub(super) const MIGRATE_RECOVER: Shape = Shape::of(&[Member::required("uri", Type::String)]);

pub(super) const SET_CAPABILITIES: Shape = Shape::of(&[Member::required(
    "capabilities",
    Type::List(&Type::Object(&Shape::of(&[
        Member::required("capability", Type::Enum(CAPABILITIES)),
        Member::required("state", Type::Bool),
    ]))),
)]);

const BITMAP: Shape = Shape::of(&[
    Member::required("name", Type::String),
    Member::required("alias", Type::String),
    Member::optional(
        "transform",
        Type::Object(&Shape::of(&[Member::optional("persistent", Type::Bool)])),
    ),
]);

const NODE: Shape = Shape::of(&[
    Member::required("node-name", Type::String),
    Member::required("alias", Type::String),
    Member::required("bitmaps", Type::List(&Type::Object(&BITMAP))),
]);

pub(super) const SET_PARAMETERS: Shape = Shape::of(&[
    Member::optional("announce-initial", Type::U64),
    Member::optional("announce-max", Type::U64),
    Member::optional("announce-rounds", Type::U64),
    Member::optional("announce-step", Type::U64),
    Member::optional("throttle-trigger-threshold", Type::U8),
    Member::optional("cpu-throttle-initial", Type::U8),
    Member::optional("cpu-throttle-increment", Type::U8),
    Member::optional("cpu-throttle-tailslow", Type::Bool),
    Member::optional("tls-creds", Type::StringOrNull),
    Member::optional("tls-hostname", Type::StringOrNull),
    Member::optional("tls-authz", Type::StringOrNull),
    Member::optional("max-bandwidth", Type::U64),
    Member::optional("avail-switchover-bandwidth", Type::U64),
    Member::optional("downtime-limit", Type::U64),
    Member::optional("x-checkpoint-delay", Type::U32),
    Member::optional("multifd-channels", Type::U8),
    Member::optional("xbzrle-cache-size", Type::U64),
    Member::optional("max-postcopy-bandwidth", Type::U64),
    Member::optional("max-cpu-throttle", Type::U8),
    Member::optional(
        "multifd-compression",
        Type::Enum(&["none", "zlib", "zstd", "qatzip", "qpl", "uadk"]),
    ),
    Member::optional("multifd-zlib-level", Type::U8),
    Member::optional("multifd-zstd-level", Type::U8),
    Member::optional("multifd-qatzip-level", Type::U8),
    Member::optional("block-bitmap-mapping", Type::List(&Type::Object(&NODE))),
    Member::optional("x-vcpu-dirty-limit-period", Type::U64),
    Member::optional("vcpu-dirty-limit", Type::U64),
    Member::optional(
        "mode",
        Type::Enum(&["normal", "cpr-reboot", "cpr-transfer", "cpr-exec"]),
    ),
    Member::optional(
        "zero-page-detection",
        Type::Enum(&["none", "legacy", "multifd"]),
    ),
    Member::optional("direct-io", Type::Bool),
    Member::optional("x-rdma-chunk-size", Type::U64),
    Member::optional("cpr-exec-command", Type::List(&Type::String)),
    // Our own.
    Member::optional("x-peer", Type::Enum(&["auto", "vmstate", "qemu", "ber"])),
]);
