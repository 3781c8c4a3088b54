//! Credentials of one shard, renewed ahead of their expiry.
//!
//! Fetching credentials (instance metadata, STS) can take longer than one attempt at the store may take. It
//! happens at start and in a task of its own, so that requests always find valid credentials.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::config::{
    ConfigBag, ProvideCredentials, ResolveCachedIdentity, RuntimeComponents,
    SharedCredentialsProvider,
};
use aws_smithy_runtime_api::client::identity::{Identity, IdentityFuture, SharedIdentityResolver};
use send_wrapper::SendWrapper;

use super::connector::within;
use super::failure::chain;
use super::observer::RateLimitedLog;
use crate::limits;
use inventory_runtime::Task;

/// The identity that the SDK signs with, in place of the SDK's own cache. Belongs to one shard.
#[derive(Clone)]
pub(super) struct CurrentIdentity(SendWrapper<Rc<RefCell<Identity>>>);

impl CurrentIdentity {
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

/// Loads the first credentials and, if they expire, renews them as long as the returned task lives.
///
/// # Errors
/// The error text of the credential sources.
pub(super) async fn load(
    provider: SharedCredentialsProvider,
    log: Rc<RateLimitedLog>,
) -> Result<(CurrentIdentity, Option<Task<()>>), String> {
    let first = fetch(&provider).await?;
    let expires = first.expiration().is_some();
    let current = CurrentIdentity(SendWrapper::new(Rc::new(RefCell::new(first))));
    if !expires {
        return Ok((current, None));
    }
    let every = limits::CREDENTIALS_LOOK_EVERY;
    let renewing = renew(provider, current.clone(), log, every);
    Ok((current, Some(inventory_runtime::spawn(renewing))))
}

async fn fetch(provider: &SharedCredentialsProvider) -> Result<Identity, String> {
    let limit = limits::CREDENTIALS_TIMEOUT;
    match within(limit, provider.provide_credentials()).await {
        Some(Ok(credentials)) => Ok(Identity::from(credentials)),
        Some(Err(error)) => Err(chain(&error)),
        None => Err(format!("no credentials within {limit:?}")),
    }
}

async fn renew(
    provider: SharedCredentialsProvider,
    current: CurrentIdentity,
    log: Rc<RateLimitedLog>,
    look_every: Duration,
) {
    loop {
        // Many short waits instead of one long one: after a suspend, the wall clock may be past the expiry.
        inventory_runtime::sleep(look_every).await;
        let Some(expiry) = current.0.borrow().expiration() else {
            return;
        };
        if expiry > SystemTime::now() + limits::CREDENTIALS_RENEW_AHEAD {
            continue;
        }
        match fetch(&provider).await {
            Ok(renewed) => *current.0.borrow_mut() = renewed,
            Err(why) => log.log(&format!("credentials were not renewed: {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use aws_sdk_dynamodb::config::Credentials;

    use super::super::observer::NoObserver;
    use super::*;

    fn lasting(minutes: u64) -> Credentials {
        let expiry = SystemTime::now() + Duration::from_secs(60 * minutes);
        Credentials::new("id", "secret", None, Some(expiry), "test")
    }

    /// Minutes until the current credentials expire, in a test whose source issues credentials of one hour.
    fn left_after_renewals(first_minutes: u64) -> u64 {
        let look_every = Duration::from_millis(1);
        let left = inventory_runtime::run_unpinned(async move {
            let first = Identity::from(lasting(first_minutes));
            let current = CurrentIdentity(SendWrapper::new(Rc::new(RefCell::new(first))));
            let source = SharedCredentialsProvider::new(lasting(60));
            let log = Rc::new(RateLimitedLog::new(Rc::new(NoObserver)));
            let renewing = renew(source, current.clone(), log, look_every);
            assert!(within(20 * look_every, renewing).await.is_none());
            let expiry = current.0.borrow().expiration().unwrap();
            expiry.duration_since(SystemTime::now()).unwrap()
        });
        left.unwrap().as_secs().div_ceil(60)
    }

    #[test]
    fn credentials_are_renewed_before_expiry() {
        assert_eq!(left_after_renewals(4), 60);
        assert_eq!(left_after_renewals(6), 6);
    }
}
