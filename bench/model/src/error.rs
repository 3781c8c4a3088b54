//! What DynamoDB refuses with: the names that its SDKs tell apart, and the JSON they read them from.
//!
//! Must not live here: when something is refused.

use crate::json::write_string;

/// The errors of single requests, transactions' reasons aside.
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
    /// As the wire has it, without its namespace.
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

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    code: Code,
    message: String,
    /// JSON members to go with it, each with a comma before it.
    more: String,
}

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            more: String::new(),
        }
    }

    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new(Code::Validation, message)
    }

    /// DynamoDB has it; the model does not, and says so rather than guess.
    pub(crate) fn unmodelled(what: impl std::fmt::Display) -> Self {
        Self::validation(format!("the model does not know {what}"))
    }

    pub(crate) fn no_table() -> Self {
        Self::new(Code::ResourceNotFound, "Requested resource not found")
    }

    pub(crate) fn with(mut self, more: String) -> Self {
        self.more = more;
        self
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The body of the answer.
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160 + self.message.len() + self.more.len());
        out.extend_from_slice(b"{\"__type\":\"");
        out.extend_from_slice(self.code.namespace().as_bytes());
        out.push(b'#');
        out.extend_from_slice(self.code.name().as_bytes());
        out.push(b'"');
        if !self.message.is_empty() {
            let is_upper = matches!(self.code, Code::TransactionCanceled | Code::Serialization);
            out.extend_from_slice(if is_upper {
                b",\"Message\":"
            } else {
                b",\"message\":"
            });
            write_string(self.message.as_bytes(), &mut out);
        }
        out.extend_from_slice(self.more.as_bytes());
        out.push(b'}');
        out
    }
}
