//! Requests of the request path, sent without the SDK's orchestrator: a body is signed and sent, and the SDK's
//! own deserializer reads the answer.
//!
//! The layers of the orchestrator (interceptors, endpoint rules, identities, retries, timeouts) are switched off or
//! constant here, but are evaluated for each call; under mixed load the SDK took a third of a shard's CPU time, of
//! which signing was a quarter. The SDK makes the call itself while no [`super::request_template`] is recorded.
//!
//! Not here: interpretation of answers, retry decisions.

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
use super::clock_skew::ClockSkew;
use super::codec;
use super::connector::ShardHttp;
use super::credentials::CurrentIdentity;
use super::request_template::{RequestTemplate, TemplateRecorder};
use super::seat_reads::SeatQueryOutput;

/// Sends requests without the SDK's orchestrator. Belongs to one shard.
pub(super) struct DirectClient {
    pub(super) templates: TemplateRecorder,
    http: ShardHttp,
    identity: CurrentIdentity,
    transact: DirectOperation,
    get_item: DirectOperation,
    batch_get_item: DirectOperation,
    query: DirectOperation,
}

/// Serializer and deserializer of one operation.
pub(super) struct DirectOperation {
    target: &'static str,
    layer: Option<FrozenLayer>,
}

impl DirectOperation {
    pub(super) fn of(target: &'static str, plugin: &dyn RuntimePlugin) -> Self {
        Self { target, layer: plugin.config() }
    }

    fn reader(&self) -> Option<&SharedResponseDeserializer> {
        self.layer.as_ref()?.load::<SharedResponseDeserializer>()
    }

    fn writer(&self) -> Option<&SharedRequestSerializer> {
        self.layer.as_ref()?.load::<SharedRequestSerializer>()
    }

    #[expect(clippy::result_large_err, reason = "the error type of the SDK's own calls")]
    fn body<R: DirectRead>(&self, read: R) -> Result<SdkBody, SdkError<R::Error, HttpResponse>> {
        let writer = self.writer().ok_or(MissingSerializer);
        let writer = writer.map_err(SdkError::construction_failure)?;
        let input = read.input().map_err(SdkError::construction_failure)?;
        let written = writer.serialize_input(Input::erase(input), &mut ConfigBag::base());
        let mut written = written.map_err(SdkError::construction_failure)?;
        Ok(written.take_body())
    }

    /// What the SDK reads from the response.
    #[expect(clippy::result_large_err, reason = "the error type of the SDK's own calls")]
    pub(super) fn parse<O, E>(&self, response: HttpResponse) -> Result<O, SdkError<E, HttpResponse>>
    where
        O: fmt::Debug + Send + Sync + 'static,
        E: Error + Send + Sync + 'static,
    {
        let Some(reader) = self.reader() else {
            // Not a failed construction: the request was sent.
            return Err(SdkError::response_error(MissingSerializer, response));
        };
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
        let mut service_error = None;
        // Other error types are not answers of the store.
        let message = error.map_operation_error(|error| service_error = Some(error)).to_string();
        match service_error.map(|service_error| service_error.downcast::<E>()) {
            Some(Ok(service_error)) => Err(SdkError::service_error(service_error, response)),
            Some(Err(_)) | None => Err(SdkError::response_error(message, response)),
        }
    }
}

impl DirectClient {
    pub(super) fn new(
        templates: TemplateRecorder,
        http: ShardHttp,
        identity: CurrentIdentity,
    ) -> Self {
        Self {
            templates,
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

    /// Sends a `TransactWriteItems` with this body.
    ///
    /// # Errors
    /// As the SDK's call.
    pub(super) async fn transact(
        &self,
        template: &RequestTemplate,
        body: SdkBody,
    ) -> Result<TransactWriteItemsOutput, SdkError<TransactWriteItemsError, HttpResponse>> {
        self.send(template, &self.transact, body).await
    }

    pub(super) fn clock_skew(&self) -> Option<ClockSkew> {
        self.http.clock_skew()
    }

    async fn read<R: DirectRead>(
        &self,
        template: &RequestTemplate,
        read: R,
    ) -> Result<R::Output, SdkError<R::Error, HttpResponse>> {
        let operation = R::operation(self);
        let body = operation.body(read)?;
        self.send(template, operation, body).await
    }

    /// Sends the query of a page of seats. The page is decoded here, unless it has items that this server does not
    /// write.
    ///
    /// # Errors
    /// As the SDK's call.
    pub(super) async fn query_seats(
        &self,
        template: &RequestTemplate,
        read: QueryInputBuilder,
    ) -> Result<SeatQueryOutput, SdkError<QueryError, HttpResponse>> {
        let body = self.query.body(read)?;
        let response = self.exchange(template, &self.query, body).await?;
        if response.status().is_success()
            && let Some(page) = response.body().bytes().and_then(codec::decode_seat_page)
        {
            return Ok(page.into());
        }
        self.query.parse::<QueryOutput, _>(response).map(SeatQueryOutput::from)
    }

    async fn send<O, E>(
        &self,
        template: &RequestTemplate,
        operation: &DirectOperation,
        body: SdkBody,
    ) -> Result<O, SdkError<E, HttpResponse>>
    where
        O: fmt::Debug + Send + Sync + 'static,
        E: Error + Send + Sync + 'static,
    {
        let response = self.exchange(template, operation, body).await?;
        operation.parse(response)
    }

    async fn exchange<E>(
        &self,
        template: &RequestTemplate,
        operation: &DirectOperation,
        body: SdkBody,
    ) -> Result<HttpResponse, SdkError<E, HttpResponse>> {
        let identity = self.identity.get();
        let request = template.request(operation.target, body, &identity, SystemTime::now());
        let request = request.map_err(SdkError::construction_failure)?;
        let sent = self.http.send(request).await;
        sent.map_err(SdkError::dispatch_failure)
    }
}

impl Store {
    /// Makes one attempt at `read`, directly if a template is recorded.
    ///
    /// # Errors
    /// As the SDK's call.
    pub(super) async fn send_read<R: DirectRead>(
        &self,
        read: R,
    ) -> Result<R::Output, SdkError<R::Error, HttpResponse>> {
        let direct_client = &self.inner.direct_client;
        match direct_client.templates.template() {
            Some(template) => direct_client.read(&template, read).await,
            // Rare and large: boxed, to keep the futures of reads small.
            None => Box::pin(read.by_sdk(self.client())).await,
        }
    }
}

/// A read of the request path, implemented by the SDK's input builders.
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

/// The SDK lacks the serializer or deserializer of an operation.
#[derive(Debug, thiserror::Error)]
#[error("the SDK has no serializer or deserializer of this operation")]
struct MissingSerializer;
