//! Who may call ADMIN_PORT: clients with a certificate (mutual TLS) or a token, and who they are in the audit log.
//!
//! Health and reflection answer everybody. Not here: handshakes (`admin_stream`).

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use inventory_tls::FileSetting;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tonic::service::Interceptor;
use tonic::{Code, Request, Status};

use super::admin_stream::AdminPeer;
use crate::limits;
use crate::telemetry::log_interval::LogInterval;
use tonic_types::{ErrorDetails, StatusExt as _};

/// `google.rpc.ErrorInfo.domain` of all errors of this service.
pub(super) const ERROR_DOMAIN: &str = "inventory-api";

/// One token: the hash of its text, so that the text is in no memory longer than needed, and a comparison takes the same
/// time for every text.
#[derive(Clone, PartialEq, Eq)]
struct AdminToken {
    /// Name of its holder, for the audit log; empty without one.
    name: String,
    hash: [u8; 32],
}

/// The tokens of a file, read again when it changes.
#[derive(Clone)]
pub struct AdminTokens {
    file: FileSetting,
    current: watch::Sender<Arc<Vec<AdminToken>>>,
}

/// What is wrong with a token file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}={path}: {problem}; {TOKENS_WANTED}", path = path.display())]
pub struct TokenFileError {
    setting: &'static str,
    path: std::path::PathBuf,
    problem: String,
}

const TOKENS_WANTED: &str = "want a file with one token per line, each of at least 32 printable ASCII characters, with the \
     name of its holder before it if there are several (NAME TOKEN); `openssl rand -hex 32` makes one";

impl AdminTokens {
    /// # Errors
    /// A file that cannot be read, or without a usable token.
    pub fn load(file: FileSetting) -> Result<Self, TokenFileError> {
        let tokens = read(&file)?;
        Ok(Self { file, current: watch::Sender::new(Arc::new(tokens)) })
    }

    /// Reads the file again and again, at once when `requested` is notified.
    pub(crate) async fn follow_file(self, requested: Arc<Notify>) {
        let mut reported: Option<TokenFileError> = None;
        loop {
            // Elapsed: the usual interval.
            let _ = timeout(limits::TLS_FILES_READ_EVERY, requested.notified()).await;
            let file = self.file.clone();
            let Ok(found) = tokio::task::spawn_blocking(move || read(&file)).await else {
                continue;
            };
            match found {
                Ok(tokens) => {
                    reported = None;
                    if tokens != **self.current.borrow() {
                        tracing::info!(tokens = tokens.len(), "admin tokens reloaded");
                        self.current.send_replace(Arc::new(tokens));
                    }
                }
                Err(error) if reported.as_ref() == Some(&error) => {}
                Err(error) => {
                    let what = "admin tokens not reloaded; the previous ones stay in use";
                    tracing::error!(error = %error, "{what}");
                    reported = Some(error);
                }
            }
        }
    }

    /// The holder of `token`; `None` if it is none of the tokens. Takes the same time for every text of the same length.
    fn holder(&self, token: &str) -> Option<String> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let tokens = Arc::clone(&self.current.borrow());
        let mut holder = None;
        for one in tokens.iter() {
            if bool::from(one.hash.ct_eq(&hash)) {
                holder = Some(one.name.clone());
            }
        }
        holder
    }
}

fn read(file: &FileSetting) -> Result<Vec<AdminToken>, TokenFileError> {
    let wrong = |problem: String| TokenFileError {
        setting: file.setting,
        path: file.path.clone(),
        problem,
    };
    let text = read_text(&file.path).map_err(wrong)?;
    parse(&text).map_err(wrong)
}

fn read_text(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if size > limits::ADMIN_TOKEN_FILE_BYTES_MAX {
        return Err(format!("has {size} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))
}

/// The token that a client of this file sends: the first one.
pub(crate) fn first_token(path: &Path) -> Result<String, String> {
    let text = read_text(path)?;
    parse(&text)?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    Ok(line.split_whitespace().last().unwrap_or_default().to_owned())
}

/// No message repeats a part of a token.
fn parse(text: &str) -> Result<Vec<AdminToken>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut tokens = Vec::new();
    let mut names = BTreeSet::new();
    for (at, line) in lines.enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, token) = match words[..] {
            [token] => ("", token),
            [name, token] => (name, token),
            _ => return Err(format!("has {} words in token {}", words.len(), at + 1)),
        };
        if token.len() < limits::ADMIN_TOKEN_BYTES_MIN {
            return Err(format!("has only {} characters in token {}", token.len(), at + 1));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("has other characters in token {}", at + 1));
        }
        if !names.insert(name) {
            return Err(format!("has two tokens of the same holder {name:?}"));
        }
        tokens.push(AdminToken {
            name: name.to_owned(),
            hash: Sha256::digest(token.as_bytes()).into(),
        });
    }
    match tokens.len() {
        0 => Err("has no token".to_owned()),
        count if count > limits::ADMIN_TOKENS_MAX => Err(format!("has {count} tokens")),
        _ => Ok(tokens),
    }
}

/// The caller of an admin call, for the audit log.
#[derive(Clone, Debug, Default)]
pub(super) struct AdminCaller {
    address: Option<SocketAddr>,
    /// Names in the certificate of the client.
    certificate: Option<String>,
    /// Holder of the token; empty without a name.
    token: Option<String>,
}

impl AdminCaller {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }
}

impl fmt::Display for AdminCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.certificate, &self.token) {
            (Some(names), _) => write!(f, "certificate {names}")?,
            (None, Some(name)) if name.is_empty() => f.write_str("token")?,
            (None, Some(name)) => write!(f, "token {name}")?,
            (None, None) => f.write_str("anonymous")?,
        }
        match self.address {
            Some(address) => write!(f, " at {address}"),
            None => Ok(()),
        }
    }
}

/// Calls that were refused, for metrics.
#[derive(Default)]
pub(crate) struct RefusedAdminCalls {
    pub(crate) no_token: AtomicU64,
    pub(crate) wrong_token: AtomicU64,
    log: LogInterval,
}

/// Lets calls with a valid token pass, or all calls if the port has no tokens: then it is on loopback, or its clients
/// have certificates.
#[derive(Clone)]
pub(super) struct AccessCheck {
    tokens: Option<AdminTokens>,
    refused: Arc<RefusedAdminCalls>,
}

impl AccessCheck {
    pub(super) fn new(tokens: Option<AdminTokens>, refused: Arc<RefusedAdminCalls>) -> Self {
        Self { tokens, refused }
    }

    fn refuse(&self, caller: &AdminCaller, is_missing: bool) -> Status {
        let (counter, reason, what) = match is_missing {
            true => (&self.refused.no_token, "TOKEN_MISSING", "the call has no token"),
            false => (&self.refused.wrong_token, "TOKEN_WRONG", "the token is wrong"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.refused.log.due() {
            tracing::warn!(caller = %caller, reason, suppressed, "admin call refused");
        }
        let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, []);
        let fix =
            "send the token of ADMIN_TOKEN_FILE: `authorization: Bearer TOKEN`, or --token-file";
        Status::with_error_details(Code::Unauthenticated, format!("{what}; {fix}"), details)
    }
}

impl Interceptor for AccessCheck {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let peer = request.extensions().get::<AdminPeer>().cloned().unwrap_or_default();
        let mut caller =
            AdminCaller { address: peer.address, certificate: peer.names, token: None };
        // A certificate has been verified in the handshake.
        if let Some(tokens) = &self.tokens
            && caller.certificate.is_none()
        {
            let header = request.metadata().get("authorization");
            let token = header.and_then(|value| value.to_str().ok()).and_then(bearer);
            let Some(token) = token else {
                return Err(self.refuse(&caller, true));
            };
            caller.token = tokens.holder(token);
            if caller.token.is_none() {
                return Err(self.refuse(&caller, false));
            }
        }
        request.extensions_mut().insert(caller);
        Ok(request)
    }
}

/// The token of an `authorization` header (RFC 6750).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const TWO: &str = "fedcba9876543210fedcba9876543210";

    fn tokens(text: &str) -> Result<AdminTokens, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let setting = FileSetting { setting: "ADMIN_TOKEN_FILE", path: file.path().to_owned() };
        AdminTokens::load(setting).map_err(|error| error.to_string())
    }

    #[test]
    fn tokens_have_holders_and_any_other_text_has_none() {
        let tokens = tokens(&format!("\nalice {ONE}\n  bob {TWO}  \n")).unwrap();
        assert_eq!(tokens.holder(ONE).as_deref(), Some("alice"));
        assert_eq!(tokens.holder(TWO).as_deref(), Some("bob"));
        for wrong in ["", &ONE[1..], &format!("{ONE}0"), "alice"] {
            assert_eq!(tokens.holder(wrong), None, "{wrong}");
        }
        assert_eq!(self::tokens(ONE).unwrap().holder(ONE).as_deref(), Some(""));
    }

    #[test]
    fn unusable_token_files_are_refused_and_no_token_is_repeated() {
        for (text, needle) in [
            ("", "no token"),
            ("short", "only 5 characters"),
            (&format!("a b {ONE}"), "3 words"),
            (&format!("{ONE}\u{e9}"), "other characters"),
            (&format!("a {ONE}\na {TWO}"), "same holder"),
            (&format!("{ONE}\n").repeat(2), "same holder"),
        ] {
            let error = tokens(text).err().unwrap();
            assert!(error.contains(needle) && error.contains("ADMIN_TOKEN_FILE"), "{error}");
            assert!(!error.contains(ONE) && !error.contains("short"), "{error}");
        }
    }

    #[test]
    fn calls_pass_with_a_token_and_are_refused_without() {
        let refused: Arc<RefusedAdminCalls> = Arc::default();
        let mut check = AccessCheck::new(Some(tokens(ONE).unwrap()), Arc::clone(&refused));
        let mut call = |header: Option<&str>| {
            let mut request = Request::new(());
            if let Some(header) = header {
                request.metadata_mut().insert("authorization", header.parse().unwrap());
            }
            check.call(request).map(|request| AdminCaller::of(&request).to_string())
        };
        assert_eq!(call(Some(&format!("Bearer {ONE}"))).unwrap(), "token");
        assert_eq!(call(Some(&format!("bearer  {ONE}"))).unwrap(), "token");
        for wrong in [Some(&*format!("Bearer {TWO}")), Some(ONE), Some("Basic abc"), None] {
            assert_eq!(call(wrong).unwrap_err().code(), Code::Unauthenticated, "{wrong:?}");
        }
        assert_eq!(refused.wrong_token.load(Ordering::Relaxed), 1);
        assert_eq!(refused.no_token.load(Ordering::Relaxed), 3);
    }
}
