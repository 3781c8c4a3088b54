//! Calls to the admin service: address, time limits, and rejections as readable messages.

use std::fmt::Display;

use http::Uri;
use inventory_proto::inventory::v1::inventory_admin_client::InventoryAdminClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;

use super::address::shown;
use super::args::ServerArgs;
use super::{CommandError, client};
use crate::config::{self, ProcessEnv};
use crate::control_plane::first_token;
use crate::limits::{ADMIN_ANSWER_BYTES_MAX, COMMAND_CALL_TIMEOUT};

/// A client of the admin service.
pub(super) type AdminClient = InventoryAdminClient<AdminChannel>;

/// A connection to an admin port, whose calls have the token.
pub(super) type AdminChannel = InterceptedService<Channel, AdminTokenHeader>;

/// Adds the token of a file to each call.
#[derive(Clone)]
pub(super) struct AdminTokenHeader(Option<MetadataValue<Ascii>>);

impl Interceptor for AdminTokenHeader {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl AdminTokenHeader {
    fn read(args: &ServerArgs) -> Result<Self, CommandError> {
        let Some(path) = &args.token else {
            return Ok(Self(None));
        };
        let wrong = |why| CommandError::usage(format!("--token-file {}: {why}", path.display()));
        let token = first_token(path).map_err(wrong)?;
        let header = MetadataValue::try_from(format!("Bearer {token}"));
        let mut header = header.map_err(|_| wrong("has other characters".to_owned()))?;
        header.set_sensitive(true);
        Ok(Self(Some(header)))
    }
}

/// Connects to the admin port at `server`.
///
/// # Errors
/// A file that cannot be used, or nobody listens there.
pub(super) async fn connect(args: &ServerArgs, server: &Uri) -> Result<AdminChannel, CommandError> {
    let token = AdminTokenHeader::read(args)?;
    Ok(InterceptedService::new(client::connect(server, &args.tls).await?, token))
}

/// The admin address: the given one, or the one of this environment.
pub(super) fn address(args: &ServerArgs) -> Result<Uri, CommandError> {
    if let Some(url) = &args.address {
        return Ok(url.clone());
    }
    match config::admin_address(&ProcessEnv)? {
        Some(address) if address.port() != 0 => {
            Ok(client::url_of(address, config::admin_has_tls(&ProcessEnv)?))
        }
        Some(_) => Err(CommandError::usage(
            "ADMIN_PORT=0: the port of the server is unknown; pass --admin host:port",
        )),
        None => Err(CommandError::usage(
            "ADMIN_PORT=off: a server with these settings has no admin port; name another with \
             --admin host:port",
        )),
    }
}

/// The message for an event that does not exist.
pub(super) fn no_event(args: &ServerArgs, event: &impl Display) -> String {
    format!("there is no event {event}: `{}` lists the events", args.command("event list"))
}

/// The message for an answer that no admin port gives; `None` for any other.
pub(super) fn explain_foreign(server: &Uri, status: &Status) -> Option<String> {
    let at = shown(server);
    match status.code() {
        Code::Unimplemented => Some(format!(
            "{at} is not an admin port, or that of an older server; it is ADMIN_PORT, 8081 by default"
        )),
        _ if client::requires_tls(status) => {
            Some(format!("{at} requires TLS: name it as https://, with --tls-ca"))
        }
        _ if client::is_connection_lost(status) => Some(format!(
            "{at} closed the connection without an answer: the server stops, or this is not an admin port, which is \
             ADMIN_PORT, 8081 by default"
        )),
        _ => None,
    }
}

/// The admin port of one server.
pub(super) struct AdminPort<'a> {
    args: &'a ServerArgs,
    url: Uri,
}

impl<'a> AdminPort<'a> {
    /// As [`address`].
    pub(super) fn find(args: &'a ServerArgs) -> Result<Self, CommandError> {
        address(args).map(|url| Self { args, url })
    }

    /// `command` as it must be typed to reach this server.
    pub(super) fn command(&self, command: impl Display) -> String {
        self.args.command(command)
    }

    /// Makes one call, about `subject`, within [`COMMAND_CALL_TIMEOUT`].
    pub(super) fn call<M, A>(
        &self,
        subject: impl Display,
        message: M,
        call: impl AsyncFnOnce(&mut AdminClient, Request<M>) -> Result<Response<A>, Status>,
    ) -> Result<A, CommandError> {
        client::block_on(COMMAND_CALL_TIMEOUT, &self.url, async {
            let mut admin = self.connect().await?;
            let mut request = Request::new(message);
            // So that the server does not go on when this command has given up.
            request.set_timeout(COMMAND_CALL_TIMEOUT);
            match call(&mut admin, request).await {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) => Err(self.explain(&subject, &status)),
            }
        })
    }

    /// Makes a call without a time limit; the caller must detect stalls.
    pub(super) fn long<T>(
        &self,
        work: impl AsyncFnOnce(AdminClient) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        client::block_on_unbounded(async { work(self.connect().await?).await })
    }

    /// [`AdminPort::long`] for work with temporary files.
    pub(super) fn long_with_files<T>(
        &self,
        work: impl AsyncFnOnce(AdminClient) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        client::block_on_interruptible(async { work(self.connect().await?).await })
    }

    async fn connect(&self) -> Result<AdminClient, CommandError> {
        let channel = connect(self.args, &self.url).await?;
        Ok(AdminClient::new(channel).max_decoding_message_size(ADMIN_ANSWER_BYTES_MAX))
    }

    /// The message for a rejection that concerns `subject`.
    pub(super) fn explain(&self, subject: &impl Display, status: &Status) -> CommandError {
        let info = status.get_details_error_info();
        let reason = info.as_ref().map_or("", |info| info.reason.as_str());
        let said = status.message();
        CommandError::failed(match (status.code(), reason) {
            (_, "EVENT_NOT_FOUND") => self.no_event(subject),
            (_, "EVENT_NOT_SEATED") => format!(
                "the event {subject} has no seats: it was created with a number of tickets; \
                 a seated one is created with --seated"
            ),
            // The server's message names the subject and the numbers.
            (Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition, _) => said.to_owned(),
            (code, _) => explain_foreign(&self.url, status).unwrap_or_else(|| {
                format!("the server at {} refused: {said} ({code:?})", self.shown())
            }),
        })
    }

    /// The message for an event that does not exist.
    pub(super) fn no_event(&self, event: &impl Display) -> String {
        no_event(self.args, event)
    }

    /// The error for an answer that violates the contract.
    pub(super) fn half_an_answer(&self) -> CommandError {
        CommandError::failed(format!("the server at {} sent no answer", self.shown()))
    }

    /// The server's address, for messages.
    pub(super) fn shown(&self) -> String {
        shown(&self.url)
    }
}
