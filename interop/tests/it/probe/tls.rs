//! TLS in between: `openssl` ends it and begins it again.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use vmstate_interop::{Machine, Result};

/// How long `openssl` may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who the certificate is for.
const HOST: &str = "localhost";

/// A process of `openssl`. It ends with this.
pub(crate) struct Tunnel(Child);

impl Tunnel {
    /// Whether it is still there.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("openssl has ended: {status}").into()),
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How the ends trust each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    /// The source checks the destination's certificate: `tls-creds-x509`.
    Certificates,
    /// Both know a key: `tls-creds-psk`.
    Psk,
}

/// That key, and the name that it has for both.
const KEY: &str = "8b1f4e0d5c3a29768b1f4e0d5c3a29768b1f4e0d5c3a29768b1f4e0d5c3a2976";
const NAME: &str = "qemu";

/// An authority and a certificate that it has signed, or a key, in files with the names that QEMU looks for.
pub(crate) struct Credentials {
    dir: TempDir,
    kind: Tls,
}

fn openssl(dir: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(dir)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("openssl {}: {said}", arguments.join(" ")).into())
}

impl Credentials {
    /// Makes them, if there is an `openssl`. Where it is missing, says so.
    pub(crate) fn make(kind: Tls) -> Result<Option<Self>> {
        let there = Command::new("openssl").arg("version").output();
        if !there.is_ok_and(|output| output.status.success()) {
            assert!(
                std::env::var_os("VMSTATE_REQUIRE_OPENSSL").is_none(),
                "openssl is required and missing"
            );
            // Not through the macro: what a passing test prints would not be seen.
            let _ = std::io::stderr().write_all(b"skipped: no openssl\n");
            return Ok(None);
        }
        let dir = tempfile::tempdir()?;
        let here = dir.path();
        if kind == Tls::Psk {
            fs::write(here.join("keys.psk"), format!("{NAME}:{KEY}\n"))?;
            return Ok(Some(Self { dir, kind }));
        }
        fs::write(
            here.join("server.ext"),
            format!(
                "basicConstraints=CA:FALSE\nsubjectAltName=DNS:{HOST}\n\
                 keyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth\n"
            ),
        )?;
        let new = ["req", "-newkey", "rsa:2048", "-nodes"];
        let ca = ["-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-x509"];
        let authority = ["-subj", "/CN=authority", "-days", "7"];
        openssl(here, &[&new[..], &ca, &authority].concat())?;
        let server = ["-keyout", "server-key.pem", "-out", "server.csr"];
        openssl(
            here,
            &[&new[..], &server, &["-subj", "/CN=localhost"]].concat(),
        )?;
        let sign = ["x509", "-req", "-in", "server.csr", "-days", "7"];
        let by = ["-CA", "ca-cert.pem", "-CAkey", "ca-key.pem"];
        let out = ["-CAcreateserial", "-out", "server-cert.pem"];
        let with = ["-extfile", "server.ext"];
        openssl(here, &[&sign[..], &by, &out, &with].concat())?;
        Ok(Some(Self { dir, kind }))
    }

    /// The source's credentials: it checks whom it talks to.
    pub(crate) fn client(&self, machine: &mut Machine) -> Result<()> {
        self.credentials(machine, "client", true)?;
        if self.kind == Tls::Psk {
            return Ok(());
        }
        let hostname = json!({ "tls-hostname": HOST });
        machine.run("migrate-set-parameters", hostname)?;
        Ok(())
    }

    /// The destination's credentials.
    pub(crate) fn server(&self, machine: &mut Machine) -> Result<()> {
        self.credentials(machine, "server", false)
    }

    fn credentials(&self, machine: &mut Machine, endpoint: &str, verify: bool) -> Result<()> {
        let dir = self.dir.path().display().to_string();
        let mut object = json!({ "id": "tls", "dir": dir, "endpoint": endpoint });
        match self.kind {
            Tls::Certificates => {
                object["qom-type"] = "tls-creds-x509".into();
                object["verify-peer"] = verify.into();
            }
            Tls::Psk => object["qom-type"] = "tls-creds-psk".into(),
        }
        machine.run("object-add", object)?;
        machine.run("migrate-set-parameters", json!({ "tls-creds": "tls" }))?;
        Ok(())
    }

    /// The end that a source connects to.
    pub(crate) fn serve(&self, at: &Path) -> Result<(Tunnel, ChildStdout, ChildStdin)> {
        let path = at.display().to_string();
        let trust: &[&str] = match self.kind {
            Tls::Certificates => &["-cert", "server-cert.pem", "-key", "server-key.pem"],
            Tls::Psk => &["-nocert"],
        };
        let fixed = ["s_server", "-quiet", "-naccept", "1", "-unix", &path];
        let pieces = self.start(&[&fixed[..], trust].concat())?;
        wait_for(at)?;
        Ok(pieces)
    }

    /// The end that connects to a destination.
    pub(crate) fn connect(&self, to: &Path) -> Result<(Tunnel, ChildStdout, ChildStdin)> {
        let path = to.display().to_string();
        let trust: &[&str] = match self.kind {
            Tls::Certificates => &[
                "-verify_return_error",
                "-CAfile",
                "ca-cert.pem",
                "-verify_hostname",
                HOST,
            ],
            Tls::Psk => &[],
        };
        self.start(&[&["s_client", "-quiet", "-unix", &path], trust].concat())
    }

    fn start(&self, arguments: &[&str]) -> Result<(Tunnel, ChildStdout, ChildStdin)> {
        // With one key for both directions, and no certificate.
        let psk: &[&str] = match self.kind {
            Tls::Certificates => &[],
            Tls::Psk => &[
                "-psk_identity",
                NAME,
                "-psk",
                KEY,
                "-tls1_2",
                "-cipher",
                "PSK",
            ],
        };
        let mut child = Command::new("openssl")
            .args(arguments)
            .args(psk)
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        match (child.stdout.take(), child.stdin.take()) {
            (Some(out), Some(into)) => Ok((Tunnel(child), out, into)),
            _ => Err("openssl without pipes".into()),
        }
    }
}

/// Until somebody listens there. No connection is tried for it: that would be taken for the source's.
fn wait_for(path: &Path) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !is_listening(path)? {
        if Instant::now() > end {
            return Err(format!("nobody listens at {}", path.display()).into());
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Whether a Unix socket listens there: its file is there a moment before that.
fn is_listening(path: &Path) -> std::io::Result<bool> {
    /// `__SO_ACCEPTCON`, in the column of flags of `/proc/net/unix` (`proc_net_unix(5)`).
    const ACCEPTS: u32 = 0x1_0000;
    let sockets = fs::read_to_string("/proc/net/unix")?;
    Ok(sockets.lines().any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let flags = columns.get(3).map(|flags| u32::from_str_radix(flags, 16));
        columns.get(7).is_some_and(|place| Path::new(place) == path)
            && matches!(flags, Some(Ok(flags)) if flags & ACCEPTS != 0)
    }))
}
