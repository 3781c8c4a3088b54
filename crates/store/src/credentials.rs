//! Credentials of the process: fetched and renewed by one thread, read by each shard from a cell of its own.
//!
//! 1. The thread fetches the first credentials; [`SharedCredentials::start`] waits for them.
//! 2. Each shard copies them into its [`CurrentIdentity`], which requests read without a lock.
//! 3. The thread renews credentials ahead of their expiry, or when a shard reports that the store refuses them, and
//!    publishes them; a task of each shard copies them again.
//!
//! A fetch (instance metadata, STS, a program) can take longer than an attempt at the store may take, and may block: it
//! never runs on a shard. While renewals fail, the old credentials stay in use and the pauses between attempts grow.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_dynamodb::config::{ConfigBag, ResolveCachedIdentity, RuntimeComponents};
use aws_smithy_runtime_api::client::identity::{Identity, IdentityFuture, SharedIdentityResolver};
use send_wrapper::SendWrapper;
use tokio::sync::{oneshot, watch};

use super::aws_chain::{self, AwsSource, LoadError, LoadedAws};
use super::connect_error::StoreConnectError;
use super::connector::NetworkSettings;
use crate::limits;
use inventory_runtime::Task;

/// The identity that the SDK signs with, in place of the SDK's own cache. Belongs to one shard.
#[derive(Clone)]
pub(super) struct CurrentIdentity(SendWrapper<Rc<RefCell<Identity>>>);

impl CurrentIdentity {
    /// An identity that never changes.
    pub(super) fn fixed(identity: Identity) -> Self {
        Self(SendWrapper::new(Rc::new(RefCell::new(identity))))
    }

    pub(super) fn get(&self) -> Identity {
        self.0.borrow().clone()
    }
}

impl fmt::Debug for CurrentIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CurrentIdentity")
    }
}

impl ResolveCachedIdentity for CurrentIdentity {
    fn resolve_cached_identity<'a>(
        &'a self,
        _: SharedIdentityResolver,
        _: &'a RuntimeComponents,
        _: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        IdentityFuture::ready(Ok(self.get()))
    }
}

/// Credentials of the process. The thread that renews them ends when the last clone is dropped.
#[derive(Clone)]
pub(super) struct SharedCredentials {
    current: watch::Receiver<Identity>,
    /// Asks for a renewal.
    refused: SyncSender<()>,
}

impl SharedCredentials {
    /// Fetches the first credentials on a new thread. Blocks until they are there, or cannot be had.
    ///
    /// # Errors
    /// What is missing or invalid.
    pub(super) fn start(source: AwsSource) -> Result<(LoadedAws, Self), StoreConnectError> {
        let (started, start) = mpsc::channel();
        let (refused, requests) = mpsc::sync_channel(1);
        let run = move || {
            let loaded = match first(|| load(&source, None), thread::sleep) {
                Ok(loaded) => loaded,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let (publish, current) = watch::channel(Identity::from(loaded.credentials.clone()));
            let network = loaded.network.clone();
            if started.send(Ok((loaded, current))).is_err() {
                return;
            }
            drop(started);
            renew(&publish, &requests, limits::CREDENTIALS_LOOK_EVERY, || {
                load(&source, Some(network.clone())).map(|loaded| loaded.credentials.into())
            });
        };
        let thread = thread::Builder::new().name("credentials".to_owned()).spawn(run);
        thread.map_err(StoreConnectError::Executor)?;
        let no_answer = || StoreConnectError::Credentials { why: "the fetch panicked".to_owned() };
        let (loaded, current) = start.recv().map_err(|_| no_answer())??;
        Ok((loaded, Self { current, refused }))
    }

    /// The identity of the current shard, and the task that keeps it current as long as it lives.
    pub(super) fn on_shard(&self) -> (CurrentIdentity, Task<()>) {
        let mut published = self.current.clone();
        let identity = CurrentIdentity::fixed(published.borrow_and_update().clone());
        let updated = identity.clone();
        let following = inventory_runtime::spawn(async move {
            while published.changed().await.is_ok() {
                let renewed = published.borrow_and_update().clone();
                *updated.0.borrow_mut() = renewed;
            }
        });
        (identity, following)
    }

    /// When the current credentials expire; `None` if they never do.
    pub(super) fn expiry(&self) -> Option<SystemTime> {
        self.current.borrow().expiration()
    }

    /// Asks for a renewal, because the store refuses the credentials. Never blocks.
    pub(super) fn report_refusal(&self) {
        let _ = self.refused.try_send(());
    }
}

/// Loads the configuration on an executor that ends with it. A credential_process needs a runtime of tokio; another
/// thread drives it meanwhile.
fn load(source: &AwsSource, network: Option<NetworkSettings>) -> Result<LoadedAws, LoadError> {
    let executor = |error: io::Error| LoadError::from(StoreConnectError::Executor(error));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(executor)?;
    thread::scope(|scope| {
        let (done, finished) = oneshot::channel::<()>();
        let runtime = &runtime;
        scope.spawn(move || {
            let _ = runtime.block_on(finished);
        });
        let _context = runtime.enter();
        let loaded = inventory_runtime::run_unpinned(aws_chain::load(source, network));
        drop(done);
        loaded.map_err(executor)?
    })
}

/// The first configuration; a source of credentials that fails is asked again a few times.
fn first<T>(
    mut load: impl FnMut() -> Result<T, LoadError>,
    sleep: impl Fn(Duration),
) -> Result<T, StoreConnectError> {
    let mut pause = limits::CREDENTIALS_RETRY_PAUSE_MIN;
    for _ in 1..limits::CREDENTIALS_START_TRIES {
        match load() {
            Ok(loaded) => return Ok(loaded),
            Err(LoadError::Permanent(error)) => return Err(error),
            Err(LoadError::Transient(error)) => {
                tracing::warn!(error = %error, "credentials not available; retrying");
            }
        }
        sleep(pause);
        pause *= 2;
    }
    load().map_err(|error| match error {
        LoadError::Permanent(error) | LoadError::Transient(error) => error,
    })
}

/// Renews credentials until no one can use them any more.
fn renew(
    publish: &watch::Sender<Identity>,
    requests: &Receiver<()>,
    look_every: Duration,
    mut fetch: impl FnMut() -> Result<Identity, LoadError>,
) {
    let mut pause = look_every;
    let mut is_failing = false;
    let mut fetched: Option<Instant> = None;
    loop {
        // Many short waits instead of one long one: after a suspend, the wall clock may be past the expiry.
        let is_refused = match requests.recv_timeout(pause) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let expiry = publish.borrow().expiration();
        let ahead = SystemTime::now() + limits::CREDENTIALS_RENEW_AHEAD;
        // Shards report every refused call; one fetch answers all of them for a while.
        if is_refused && fetched.is_some_and(|at| at.elapsed() < look_every) {
            continue;
        }
        if !is_refused && !is_failing && expiry.is_none_or(|expiry| expiry > ahead) {
            continue;
        }
        fetched = Some(Instant::now());
        match fetch() {
            Ok(renewed) => {
                publish.send_replace(renewed);
                (pause, is_failing) = (look_every, false);
            }
            Err(LoadError::Permanent(error) | LoadError::Transient(error)) => {
                let left = expiry.and_then(|at| at.duration_since(SystemTime::now()).ok());
                tracing::warn!(
                    error = %error,
                    valid_for_s = left.map_or(0, |left| left.as_secs()),
                    "credentials not renewed"
                );
                pause = match is_failing {
                    false => limits::CREDENTIALS_RETRY_PAUSE_MIN,
                    true => (pause * 2).min(limits::CREDENTIALS_RETRY_PAUSE_MAX),
                };
                is_failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;

    use aws_sdk_dynamodb::config::Credentials;

    use super::*;

    fn lasting(minutes: u64) -> Identity {
        let expiry = SystemTime::now() + Duration::from_secs(60 * minutes);
        Credentials::new("id", "secret", None, Some(expiry), "test").into()
    }

    fn failure() -> LoadError {
        LoadError::Transient(StoreConnectError::Credentials { why: "no answer".to_owned() })
    }

    /// Minutes until the current credentials expire, after `rounds` fetches at most. The source fails `failures` times
    /// and then issues credentials of one hour.
    fn left_after_renewals(first: Identity, failures: u32, refused: bool) -> (u64, u32) {
        let (publish, current) = watch::channel(first);
        let (refuse, requests) = mpsc::sync_channel(1);
        if refused {
            refuse.send(()).unwrap();
        }
        let fetches = Cell::new(0);
        let mut hold = Some(refuse);
        let deadline = Instant::now() + Duration::from_millis(40);
        renew(&publish, &requests, Duration::from_millis(1), || {
            fetches.set(fetches.get() + 1);
            let answer = if fetches.get() <= failures { Err(failure()) } else { Ok(lasting(60)) };
            if answer.is_ok() || Instant::now() > deadline {
                hold = None;
            }
            answer
        });
        let expiry = current.borrow().expiration().unwrap();
        let left = expiry.duration_since(SystemTime::now()).unwrap();
        (left.as_secs().div_ceil(60), fetches.get())
    }

    #[test]
    fn credentials_that_expire_soon_are_renewed() {
        assert_eq!(left_after_renewals(lasting(4), 0, false), (60, 1));
    }

    #[test]
    fn refused_credentials_are_renewed_before_their_expiry() {
        assert_eq!(left_after_renewals(lasting(50), 0, true), (60, 1));
    }

    #[test]
    fn failed_renewal_is_repeated() {
        assert_eq!(left_after_renewals(lasting(4), 1, false), (60, 2));
    }

    #[test]
    fn valid_credentials_are_kept() {
        let (publish, current) = watch::channel(lasting(6));
        let (hold, requests) = mpsc::sync_channel(1);
        thread::scope(|scope| {
            scope.spawn(move || {
                renew(&publish, &requests, Duration::from_millis(1), || panic!("a fetch"));
            });
            thread::sleep(Duration::from_millis(20));
            drop(hold);
        });
        let left = current.borrow().expiration().unwrap().duration_since(SystemTime::now());
        assert_eq!(left.unwrap().as_secs().div_ceil(60), 6);
    }

    #[test]
    fn source_that_fails_at_start_is_asked_again() {
        let pauses = RefCell::new(Vec::new());
        let mut asked = 0;
        let mut answer = |failures: u32| {
            asked = 0;
            first(
                || {
                    asked += 1;
                    if asked <= failures { Err(failure()) } else { Ok(asked) }
                },
                |pause| pauses.borrow_mut().push(pause),
            )
        };
        assert_eq!(answer(1).unwrap(), 2);
        assert_eq!(pauses.borrow_mut().drain(..).count(), 1);
        let error = answer(u32::MAX).unwrap_err();
        assert!(error.to_string().contains("no answer"), "{error}");
        let waited: Vec<_> = pauses.borrow_mut().drain(..).collect();
        assert!(waited.is_sorted() && waited.len() as u32 == limits::CREDENTIALS_START_TRIES - 1);
        let refused = || -> Result<u32, _> {
            let why = "malformed".to_owned();
            Err(LoadError::Permanent(StoreConnectError::Credentials { why }))
        };
        first(refused, |_| panic!("a retry cannot help")).unwrap_err();
    }

    #[test]
    fn renewed_credentials_reach_a_shard() {
        let (publish, current) = watch::channel(lasting(4));
        let (refused, _requests) = mpsc::sync_channel(1);
        let shared = SharedCredentials { current, refused };
        let renewed = lasting(60);
        let expected = renewed.expiration();
        let seen = inventory_runtime::run_unpinned(async {
            let (identity, _following) = shared.on_shard();
            let publisher = thread::spawn(move || {
                publish.send_replace(renewed);
                publish
            });
            let deadline = Instant::now() + Duration::from_secs(20);
            while identity.get().expiration() != expected && Instant::now() < deadline {
                inventory_runtime::sleep(Duration::from_millis(1)).await;
            }
            drop(publisher.join());
            identity.get().expiration()
        });
        assert_eq!(seen.unwrap(), expected);
        assert_eq!(shared.expiry(), expected);
    }
}
