//! Refusals in the words and the form of each protocol: code, HTTP status, document, headers.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::http_types::{Response, full};
use super::xml::Xml;

/// How a service speaks, as far as its errors show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Form in, XML out; the namespace of its documents. STS, SNS, and SQS before 2023.
    Query { namespace: &'static str },
    /// `X-Amz-Target` in, JSON out; the version in the content type.
    Json { version: &'static str },
    /// SQS since 2023: JSON 1.0 with the old codes in `x-amzn-query-error`.
    QueryCompatibleJson,
    /// Paths and JSON: Lambda, Bedrock.
    RestJson,
    /// Paths and XML, without a namespace: S3.
    S3,
    /// EC2's own form of the query protocol.
    Ec2,
}

/// Whose fault an error is, in the query protocol's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Sender,
    Receiver,
}

/// An error that a service answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: u16,
    /// As SDKs report it: `AWS.SimpleQueueService.NonExistentQueue`.
    pub code: String,
    /// `__type` in JSON, where it is not the code: `com.amazonaws.sqs#QueueDoesNotExist`.
    pub shape: Option<String>,
    pub message: String,
    pub fault: Fault,
}

impl ApiError {
    /// A client's error with HTTP status 400.
    pub fn bad(code: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError { status: 400, code: code.into(), shape: None, message: message.into(), fault: Fault::Sender }
    }

    pub fn status(mut self, status: u16) -> ApiError {
        self.status = status;
        if status >= 500 {
            self.fault = Fault::Receiver;
        }
        self
    }

    pub fn shape(mut self, shape: impl Into<String>) -> ApiError {
        self.shape = Some(shape.into());
        self
    }

    /// The answer, in the form of the dialect.
    pub fn render(&self, dialect: Dialect, request_id: &str) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let fault = if self.fault == Fault::Sender { "Sender" } else { "Receiver" };
        let (content_type, body) = match dialect {
            Dialect::Query { namespace } => {
                let mut xml = Xml::new();
                xml.open_ns("ErrorResponse", namespace).open("Error");
                xml.leaf("Type", fault).leaf("Code", &self.code).leaf("Message", &self.message);
                if namespace.contains("queue.amazonaws.com") {
                    xml.empty("Detail");
                }
                xml.close("Error").leaf("RequestId", request_id).close("ErrorResponse");
                ("text/xml", xml.finish())
            }
            Dialect::S3 => {
                let mut xml = Xml::with_declaration();
                xml.open("Error").leaf("Code", &self.code).leaf("Message", &self.message);
                xml.leaf("RequestId", request_id).leaf("HostId", request_id).close("Error");
                ("application/xml", xml.finish())
            }
            Dialect::Ec2 => {
                let mut xml = Xml::with_declaration();
                xml.open("Response").open("Errors").open("Error");
                xml.leaf("Code", &self.code).leaf("Message", &self.message);
                xml.close("Error").close("Errors").leaf("RequestID", request_id).close("Response");
                ("text/xml;charset=UTF-8", xml.finish())
            }
            Dialect::Json { version } => {
                let shape = self.shape.as_deref().unwrap_or(&self.code);
                let key = if shape.starts_with("com.amazon") { "message" } else { "Message" };
                (json_type(version), json!({ "__type": shape, key: self.message }).to_string())
            }
            Dialect::QueryCompatibleJson => {
                let shape = self.shape.clone().unwrap_or_else(|| format!("com.amazonaws.sqs#{}", self.code));
                (json_type("1.0"), json!({ "__type": shape, "message": self.message }).to_string())
            }
            Dialect::RestJson => ("application/json", json!({ "message": self.message }).to_string()),
        };
        let mut response = http::Response::new(full(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        match dialect {
            Dialect::QueryCompatibleJson => {
                if let Ok(value) = HeaderValue::from_str(&format!("{};{fault}", self.code)) {
                    headers.insert("x-amzn-query-error", value);
                }
            }
            Dialect::RestJson => {
                if let Ok(value) = HeaderValue::from_str(self.shape.as_deref().unwrap_or(&self.code)) {
                    headers.insert("x-amzn-errortype", value);
                }
            }
            _ => {}
        }
        response
    }
}

fn json_type(version: &str) -> &'static str {
    if version == "1.0" { "application/x-amz-json-1.0" } else { "application/x-amz-json-1.1" }
}

/// Why a request's signature does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// Not signed at all.
    Missing,
    /// The header or the query lacks a part; the sentence.
    Incomplete(String),
    /// No such key.
    UnknownKey,
    /// The session token is absent or not the one of this key.
    WrongToken,
    /// The credentials ran out.
    Expired,
    /// The date is too far off; the sentence of the query services.
    Skewed(String),
    /// A presigned URL was used after its time.
    PresignedExpired(String),
    /// Scope of another region or service; the sentence.
    Scope(String),
    /// The signature is not what we calculate.
    Mismatch,
    /// The body is larger than can be checked.
    TooLarge,
}

impl AuthError {
    /// Code, status and sentence as the services of this dialect give them.
    pub fn api_error(&self, dialect: Dialect) -> ApiError {
        match dialect {
            Dialect::S3 => self.s3(),
            Dialect::Ec2 if !matches!(self, AuthError::TooLarge) => {
                let message = match self {
                    AuthError::Expired => return ApiError::bad("RequestExpired", "Request has expired."),
                    AuthError::Skewed(m) | AuthError::PresignedExpired(m) => {
                        return ApiError::bad("RequestExpired", m.clone());
                    }
                    AuthError::Missing => return MISSING.query(),
                    _ => "AWS was not able to validate the provided access credentials",
                };
                ApiError::bad("AuthFailure", message).status(401)
            }
            Dialect::Query { .. } | Dialect::Ec2 => self.words().query(),
            // Secrets Manager and its kind answer 400, the REST services 403.
            Dialect::Json { .. } => self.words().json(400),
            Dialect::RestJson => self.words().json(403),
            Dialect::QueryCompatibleJson => {
                let words = self.words();
                let shape = format!("com.amazon.coral.service#{}", words.json);
                words.query().shape(shape)
            }
        }
    }

    fn words(&self) -> Words {
        match self {
            AuthError::Missing => MISSING,
            AuthError::Incomplete(m) => Words {
                query: "IncompleteSignature",
                json: "IncompleteSignatureException",
                message: m.clone().into(),
                status: 400,
            },
            AuthError::UnknownKey | AuthError::WrongToken => Words {
                query: "InvalidClientTokenId",
                json: "UnrecognizedClientException",
                message: "The security token included in the request is invalid.".into(),
                status: 403,
            },
            AuthError::Expired => Words {
                query: "ExpiredToken",
                json: "ExpiredTokenException",
                message: "The security token included in the request is expired".into(),
                status: 403,
            },
            AuthError::Skewed(m) | AuthError::PresignedExpired(m) | AuthError::Scope(m) => Words {
                query: "SignatureDoesNotMatch",
                json: "InvalidSignatureException",
                message: m.clone().into(),
                status: 403,
            },
            AuthError::Mismatch => Words {
                query: "SignatureDoesNotMatch",
                json: "InvalidSignatureException",
                message: "The request signature we calculated does not match the signature you provided. Check your \
                          AWS Secret Access Key and signing method. Consult the service documentation for details."
                    .into(),
                status: 403,
            },
            AuthError::TooLarge => Words {
                query: "RequestEntityTooLarge",
                json: "RequestEntityTooLargeException",
                message: "The request body is too large.".into(),
                status: 413,
            },
        }
    }

    fn s3(&self) -> ApiError {
        let (status, code, message) = match self {
            AuthError::Missing => (403, "AccessDenied", "Access Denied"),
            AuthError::Incomplete(m) | AuthError::Scope(m) => (400, "AuthorizationHeaderMalformed", m.as_str()),
            AuthError::UnknownKey => {
                (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
            }
            AuthError::WrongToken => (400, "InvalidToken", "The provided token is malformed or otherwise invalid."),
            AuthError::Expired => (400, "ExpiredToken", "The provided token has expired."),
            AuthError::Skewed(_) => (
                403,
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
            ),
            AuthError::PresignedExpired(_) => (403, "AccessDenied", "Request has expired"),
            AuthError::Mismatch => (
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. Check your key and \
                 signing method.",
            ),
            AuthError::TooLarge => {
                (400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.")
            }
        };
        ApiError::bad(code, message).status(status)
    }
}

struct Words {
    query: &'static str,
    json: &'static str,
    message: std::borrow::Cow<'static, str>,
    /// Of the query services.
    status: u16,
}

const MISSING: Words = Words {
    query: "MissingAuthenticationToken",
    json: "MissingAuthenticationTokenException",
    message: std::borrow::Cow::Borrowed("Request is missing Authentication Token"),
    status: 403,
};

impl Words {
    fn query(&self) -> ApiError {
        ApiError::bad(self.query, self.message.clone()).status(self.status)
    }

    fn json(&self, status: u16) -> ApiError {
        ApiError::bad(self.json, self.message.clone()).status(if self.status == 413 { 413 } else { status })
    }
}
