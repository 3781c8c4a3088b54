//! Errors of single requests: the codes that SDKs distinguish, and their JSON.
//!
//! Not here: when a request is rejected.

use serde_json::{Map, Value as Json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Validation,
    Serialization,
    UnknownOperation,
    ResourceNotFound,
    ResourceInUse,
    ConditionalCheckFailed,
    TransactionCanceled,
    TransactionConflict,
    TransactionInProgress,
    IdempotentParameterMismatch,
    ProvisionedThroughputExceeded,
    Throttling,
    LimitExceeded,
    InternalServerError,
    ServiceUnavailable,
}

impl Code {
    /// Name on the wire, without its namespace.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Code::Validation => "ValidationException",
            Code::Serialization => "SerializationException",
            Code::UnknownOperation => "UnknownOperationException",
            Code::ResourceNotFound => "ResourceNotFoundException",
            Code::ResourceInUse => "ResourceInUseException",
            Code::ConditionalCheckFailed => "ConditionalCheckFailedException",
            Code::TransactionCanceled => "TransactionCanceledException",
            Code::TransactionConflict => "TransactionConflictException",
            Code::TransactionInProgress => "TransactionInProgressException",
            Code::IdempotentParameterMismatch => "IdempotentParameterMismatchException",
            Code::ProvisionedThroughputExceeded => "ProvisionedThroughputExceededException",
            Code::Throttling => "ThrottlingException",
            Code::LimitExceeded => "LimitExceededException",
            Code::InternalServerError => "InternalServerError",
            Code::ServiceUnavailable => "ServiceUnavailable",
        }
    }

    fn namespace(self) -> &'static str {
        match self {
            Code::Validation | Code::Throttling => "com.amazon.coral.validate",
            Code::Serialization | Code::UnknownOperation | Code::ServiceUnavailable => {
                "com.amazon.coral.service"
            }
            _ => "com.amazonaws.dynamodb.v20120810",
        }
    }

    pub(crate) fn status(self) -> u16 {
        match self {
            Code::InternalServerError => 500,
            Code::ServiceUnavailable => 503,
            _ => 400,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    code: Code,
    message: String,
    /// Further members of the body.
    details: Map<String, Json>,
}

/// A request body that cannot be read.
impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        match error.classify() {
            serde_json::error::Category::Data => {
                Self::validation(format!("1 validation error detected: {error}"))
            }
            _ => Self::new(Code::Serialization, error.to_string()),
        }
    }
}

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Map::new() }
    }

    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new(Code::Validation, message)
    }

    /// For what DynamoDB supports and the model does not.
    pub(crate) fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::validation(format!("the model does not support {what}"))
    }

    pub(crate) fn no_table() -> Self {
        Self::new(Code::ResourceNotFound, "Requested resource not found")
    }

    pub(crate) fn with(mut self, member: &str, value: Json) -> Self {
        self.details.insert(member.to_owned(), value);
        self
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Body of the response.
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = self.details.clone();
        let name = format!("{}#{}", self.code.namespace(), self.code.name());
        body.insert("__type".to_owned(), name.into());
        let member = match self.code {
            Code::TransactionCanceled | Code::Serialization => "Message",
            _ => "message",
        };
        body.insert(member.to_owned(), self.message.clone().into());
        Json::Object(body).to_string().into_bytes()
    }
}
