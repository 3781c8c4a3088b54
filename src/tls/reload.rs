//! Reads the files of a port's TLS again. A change is used at once if it can be used. If not, the current configuration
//! stays, and the failure is reported once the files are unchanged for one interval: files that are replaced one after the
//! other do not go together in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use inventory_tls::TlsFileError;
use inventory_tls::server::ServerFileContents;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::PortTls;
use crate::limits;

/// What the files hold that is not in use.
#[derive(PartialEq, Eq)]
enum UnusedFiles {
    /// The files hold what is in use.
    None,
    /// Seen once; reported if it is still there at the next look.
    Unusable(FilesSeen),
    Reported(FilesSeen),
}

/// What was read from the files, or why they could not be read.
#[derive(Clone, PartialEq, Eq)]
enum FilesSeen {
    Contents(ServerFileContents),
    Unreadable(TlsFileError),
}

pub(super) async fn follow(mut port: PortTls, requested: Arc<Notify>) {
    let mut pending = UnusedFiles::None;
    loop {
        // Elapsed: the usual interval.
        let is_requested =
            timeout(limits::TLS_FILES_READ_EVERY, requested.notified()).await.is_ok();
        let files = Arc::clone(&port.files);
        // Files may be on a slow or remote file system.
        let Ok(read) = tokio::task::spawn_blocking(move || files.read()).await else {
            continue;
        };
        pending = port.apply(read, pending, is_requested);
    }
}

impl PortTls {
    /// Uses what was read, if it differs from what is in use and can be used.
    fn apply(
        &mut self,
        read: Result<ServerFileContents, TlsFileError>,
        pending: UnusedFiles,
        is_requested: bool,
    ) -> UnusedFiles {
        let (seen, error) = match read {
            Ok(contents) if contents == *self.loaded => {
                if is_requested {
                    tracing::info!(port = self.port, "TLS files unchanged");
                }
                self.status.is_rejected.store(false, Ordering::Relaxed);
                return UnusedFiles::None;
            }
            Ok(contents) => match self.files.load(&contents) {
                Ok(tls) => {
                    self.loaded = Arc::new(contents);
                    self.current.send_replace(tls.config);
                    self.status.not_after.store(tls.not_after, Ordering::Relaxed);
                    self.status.is_rejected.store(false, Ordering::Relaxed);
                    self.status.reloads.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(
                        port = self.port,
                        not_after = tls.not_after,
                        "TLS files reloaded"
                    );
                    return UnusedFiles::None;
                }
                Err(error) => (FilesSeen::Contents(contents), error),
            },
            Err(error) => (FilesSeen::Unreadable(error.clone()), error),
        };
        match pending {
            UnusedFiles::Reported(reported) if reported == seen => UnusedFiles::Reported(reported),
            UnusedFiles::Unusable(unusable) if unusable == seen => self.report(seen, &error),
            _ if is_requested => self.report(seen, &error),
            _ => UnusedFiles::Unusable(seen),
        }
    }

    fn report(&self, seen: FilesSeen, error: &TlsFileError) -> UnusedFiles {
        self.status.is_rejected.store(true, Ordering::Relaxed);
        self.status.failures.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            port = self.port,
            error = %error,
            "TLS files not reloaded; the previous certificate stays in use"
        );
        UnusedFiles::Reported(seen)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::path::Path;

    use inventory_testkit::certificates::{Authority, CertificateSpec, CertificateUsage};
    use inventory_tls::FileSetting;
    use inventory_tls::server::ServerFiles;

    use super::*;

    fn port(directory: &Path) -> PortTls {
        let file = |setting, name| FileSetting { setting, path: directory.join(name) };
        let files = ServerFiles {
            certificate: file("TLS_CERT_FILE", "server.crt"),
            key: file("TLS_KEY_FILE", "server.key"),
            client_authorities: None,
            allowed_clients: Vec::new(),
        };
        PortTls::load("grpc", files).unwrap()
    }

    /// One look at the files.
    fn look(port: &mut PortTls, pending: UnusedFiles) -> UnusedFiles {
        let read = port.files.read();
        port.apply(read, pending, false)
    }

    #[test]
    fn new_files_are_used_and_unchanged_ones_are_not_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("ca");
        authority.issue_server().write(dir.path(), "server");
        let mut port = port(dir.path());
        let current = port.current();
        let pending = look(&mut port, UnusedFiles::None);
        assert!(!current.has_changed().unwrap());
        let (names, usage) = (&["localhost"], CertificateUsage::Server);
        let next = CertificateSpec { names, years: (2020, 3000), usage };
        authority.issue(next).write(dir.path(), "server");
        look(&mut port, pending);
        assert!(current.has_changed().unwrap());
        let metrics = port.metrics();
        assert_eq!((metrics.reloads, metrics.failures, metrics.is_rejected), (1, 0, false));
        // 3000-01-01.
        assert_eq!(metrics.not_after, 32_503_680_000);
    }

    #[test]
    fn unusable_files_are_reported_once_and_the_certificate_stays_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("ca");
        let pair = authority.issue_server().write(dir.path(), "server");
        let mut port = port(dir.path());
        let current = port.current();
        // Another certificate, without its key so far.
        let other = authority.issue_server();
        fs::write(&pair.certificate, &other.certificate_pem).unwrap();
        let mut pending = look(&mut port, UnusedFiles::None);
        assert_eq!(port.metrics().failures, 0, "reported at the first look");
        for _ in 0..3 {
            pending = look(&mut port, pending);
            let metrics = port.metrics();
            assert_eq!((metrics.reloads, metrics.failures, metrics.is_rejected), (0, 1, true));
        }
        fs::remove_file(&pair.key).unwrap();
        pending = look(&mut port, pending);
        pending = look(&mut port, pending);
        assert_eq!(port.metrics().failures, 2);
        assert!(!current.has_changed().unwrap());
        // The key follows.
        fs::write(&pair.key, &other.key_pem).unwrap();
        look(&mut port, pending);
        let metrics = port.metrics();
        assert_eq!((metrics.reloads, metrics.failures, metrics.is_rejected), (1, 2, false));
        assert!(current.has_changed().unwrap());
    }
}
