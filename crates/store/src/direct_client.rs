//! The calls of the request path, sent without the SDK's orchestrator: a body is signed and sent, and
//! the SDK's own reader makes of the answer what it makes of any.
//!
//! The orchestrator's layers (interceptors, endpoint rules, identities, retries, timeouts: switched off or
//! constant here, and looked at for each call) took a fifth of a shard under mixed calls. The SDK goes first
//! on every way ([`super::request_template`]) and makes the call itself wherever none is known.
//!
//! Must not live here: what an answer means, when to try again.

use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::{ConfigBag, FrozenLayer, RuntimePlugin};
use aws_sdk_dynamodb::error::{BuildError, SdkError};
use aws_sdk_dynamodb::operation::batch_get_item::builders::BatchGetItemInputBuilder;
use aws_sdk_dynamodb::operation::batch_get_item::{
    BatchGetItem, BatchGetItemError, BatchGetItemInput, BatchGetItemOutput,
};
use aws_sdk_dynamodb::operation::get_item::builders::GetItemInputBuilder;
use aws_sdk_dynamodb::operation::get_item::{GetItem, GetItemError, GetItemInput, GetItemOutput};
use aws_sdk_dynamodb::operation::query::builders::QueryInputBuilder;
use aws_sdk_dynamodb::operation::query::{Query, QueryError, QueryInput, QueryOutput};
use aws_sdk_dynamodb::operation::transact_write_items::{
    TransactWriteItems, TransactWriteItemsError, TransactWriteItemsOutput,
};
use aws_smithy_runtime_api::client::interceptors::context::Input;
use aws_smithy_runtime_api::client::ser_de::{
    DeserializeResponse, SerializeRequest, SharedRequestSerializer, SharedResponseDeserializer,
};
use aws_smithy_types::body::SdkBody;

use super::Store;
use super::connector::ShardHttp;
use super::credentials::CurrentIdentity;
use super::request_template::{RequestTemplate, TemplateRecorder};

/// One shard's.
pub(super) struct DirectClient {
    pub(super) trail: TemplateRecorder,
    http: ShardHttp,
    identity: CurrentIdentity,
    transact: DirectOperation,
    get_item: DirectOperation,
    batch_get_item: DirectOperation,
    query: DirectOperation,
}

/// How the SDK writes a request of an operation and reads its answer.
pub(super) struct DirectOperation {
    target: &'static str,
    layer: Option<FrozenLayer>,
}

impl DirectOperation {
    fn of(target: &'static str, plugin: &dyn RuntimePlugin) -> Self {
        Self {
            target,
            layer: plugin.config(),
        }
    }

    fn reader(&self) -> Option<&SharedResponseDeserializer> {
        self.layer.as_ref()?.load::<SharedResponseDeserializer>()
    }

    fn writer(&self) -> Option<&SharedRequestSerializer> {
        self.layer.as_ref()?.load::<SharedRequestSerializer>()
    }
}

impl DirectClient {
    pub(super) fn new(trail: TemplateRecorder, http: ShardHttp, identity: CurrentIdentity) -> Self {
        Self {
            trail,
            http,
            identity,
            transact: DirectOperation::of(
                "DynamoDB_20120810.TransactWriteItems",
                &TransactWriteItems::new(),
            ),
            get_item: DirectOperation::of("DynamoDB_20120810.GetItem", &GetItem::new()),
            batch_get_item: DirectOperation::of(
                "DynamoDB_20120810.BatchGetItem",
                &BatchGetItem::new(),
            ),
            query: DirectOperation::of("DynamoDB_20120810.Query", &Query::new()),
        }
    }

    /// A `TransactWriteItems` with this body.
    ///
    /// # Errors
    /// As of the SDK's call.
    pub(super) async fn transact(
        &self,
        way: &RequestTemplate,
        body: SdkBody,
    ) -> Result<TransactWriteItemsOutput, SdkError<TransactWriteItemsError, HttpResponse>> {
        self.send(way, &self.transact, body).await
    }

    async fn read<R: DirectRead>(
        &self,
        way: &RequestTemplate,
        read: R,
    ) -> Result<R::Output, SdkError<R::Error, HttpResponse>> {
        let operation = R::operation(self);
        let writer = operation.writer().ok_or(MissingSerializer);
        let writer = writer.map_err(SdkError::construction_failure)?;
        let input = read.input().map_err(SdkError::construction_failure)?;
        let written = writer.serialize_input(Input::erase(input), &mut ConfigBag::base());
        let mut written = written.map_err(SdkError::construction_failure)?;
        self.send(way, operation, written.take_body()).await
    }

    async fn send<O, E>(
        &self,
        way: &RequestTemplate,
        operation: &DirectOperation,
        body: SdkBody,
    ) -> Result<O, SdkError<E, HttpResponse>>
    where
        O: fmt::Debug + Send + Sync + 'static,
        E: Error + Send + Sync + 'static,
    {
        let reader = operation.reader().ok_or(MissingSerializer);
        let reader = reader.map_err(SdkError::construction_failure)?;
        let identity = self.identity.get();
        let request = way.request(operation.target, body, &identity, SystemTime::now());
        let request = request.map_err(SdkError::construction_failure)?;
        let sent = self.http.send(request).await;
        let response = sent.map_err(SdkError::dispatch_failure)?;
        let error = match reader.deserialize_nonstreaming_with_config(&response, &ConfigBag::base())
        {
            Ok(output) => {
                return match output.downcast::<O>() {
                    Ok(output) => Ok(output),
                    Err(_) => Err(SdkError::response_error(MissingSerializer, response)),
                };
            }
            Err(error) => error,
        };
        let mut said = None;
        // Whatever the other kinds of it are, they are not the store's word.
        let unread = error
            .map_operation_error(|error| said = Some(error))
            .to_string();
        match said.map(|said| said.downcast::<E>()) {
            Some(Ok(said)) => Err(SdkError::service_error(said, response)),
            Some(Err(_)) | None => Err(SdkError::response_error(unread, response)),
        }
    }
}

impl Store {
    /// One attempt at `read`, the short way if it is known.
    ///
    /// # Errors
    /// As of the SDK's call.
    pub(super) async fn send_read<R: DirectRead>(
        &self,
        read: R,
    ) -> Result<R::Output, SdkError<R::Error, HttpResponse>> {
        let shortcut = &self.inner.shortcut;
        match shortcut.trail.way() {
            Some(way) => shortcut.read(&way, read).await,
            // Rare and large: not part of every read's future.
            None => Box::pin(read.by_sdk(self.client())).await,
        }
    }
}

/// A read of the request path: the SDK's builder of it.
pub(super) trait DirectRead {
    type Input: fmt::Debug + Send + Sync + 'static;
    type Output: fmt::Debug + Send + Sync + 'static;
    type Error: Error + Send + Sync + 'static;

    fn operation(of: &DirectClient) -> &DirectOperation;

    fn input(self) -> Result<Self::Input, BuildError>;

    fn by_sdk(
        self,
        client: &Client,
    ) -> impl Future<Output = Result<Self::Output, SdkError<Self::Error, HttpResponse>>>;
}

macro_rules! reads {
    ($($operation:ident: $builder:ty, $input:ty, $output:ty, $error:ty;)+) => {
        $(impl DirectRead for $builder {
            type Input = $input;
            type Output = $output;
            type Error = $error;

            fn operation(of: &DirectClient) -> &DirectOperation {
                &of.$operation
            }

            fn input(self) -> Result<Self::Input, BuildError> {
                self.build()
            }

            fn by_sdk(
                self,
                client: &Client,
            ) -> impl Future<Output = Result<Self::Output, SdkError<Self::Error, HttpResponse>>> {
                self.send_with(client)
            }
        })+
    };
}

reads! {
    get_item: GetItemInputBuilder, GetItemInput, GetItemOutput, GetItemError;
    batch_get_item: BatchGetItemInputBuilder, BatchGetItemInput, BatchGetItemOutput, BatchGetItemError;
    query: QueryInputBuilder, QueryInput, QueryOutput, QueryError;
}

/// The SDK has no writer or reader of an operation where it had one when this was written.
#[derive(Debug, thiserror::Error)]
#[error("the SDK's own way to write a request and to read its answer is not where it was")]
struct MissingSerializer;
