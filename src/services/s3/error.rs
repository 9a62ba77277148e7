//! S3's errors as S3 words them.
//!
//! s3s knows the codes; messages and the outer form are S3's own ("Error responses", Amazon S3 API Reference). Every
//! refusal, ours or that of s3s, leaves through [`render`], so that all have one shape.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use quick_xml::escape::{escape, unescape};
use s3s::{Body, S3Error, S3ErrorCode};

/// Code, HTTP status, and what S3 says unless there is something more precise to say.
const KNOWN: &[(&str, u16, &str)] = &[
    ("AccessDenied", 403, "Access Denied"),
    ("AuthorizationHeaderMalformed", 400, "The authorization header is malformed."),
    ("AccessControlListNotSupported", 400, "The bucket does not allow ACLs"),
    (
        "AuthorizationQueryParametersError",
        400,
        "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, \
         X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
    ),
    ("BadDigest", 400, "The Content-MD5 you specified did not match what we received."),
    (
        "BucketAlreadyExists",
        409,
        "The requested bucket name is not available. The bucket namespace is shared by all users of the system. \
         Please select a different name and try again.",
    ),
    (
        "BucketAlreadyOwnedByYou",
        409,
        "Your previous request to create the named bucket succeeded and you already own it.",
    ),
    ("BucketNotEmpty", 409, "The bucket you tried to delete is not empty"),
    ("EntityTooLarge", 400, "Your proposed upload exceeds the maximum allowed size"),
    ("EntityTooSmall", 400, "Your proposed upload is smaller than the minimum allowed size"),
    ("ExpiredToken", 400, "The provided token has expired."),
    (
        "IllegalLocationConstraintException",
        400,
        "The unspecified location constraint is incompatible for the region specific endpoint this request was sent to.",
    ),
    ("IncompleteBody", 400, "You did not provide the number of bytes specified by the Content-Length HTTP header"),
    ("InternalError", 500, "We encountered an internal error. Please try again."),
    ("InvalidAccessKeyId", 403, "The AWS Access Key Id you provided does not exist in our records."),
    ("InvalidArgument", 400, "Invalid Argument"),
    ("InvalidBucketName", 400, "The specified bucket is not valid."),
    ("InvalidDigest", 400, "The Content-MD5 you specified was invalid."),
    ("InvalidLocationConstraint", 400, "The specified location-constraint is not valid"),
    (
        "InvalidPart",
        400,
        "One or more of the specified parts could not be found.  The part may not have been uploaded, or the \
         specified entity tag may not match the part's entity tag.",
    ),
    ("InvalidPartNumber", 416, "The requested partnumber is not satisfiable"),
    ("InvalidPartOrder", 400, "The list of parts was not in ascending order. Parts must be ordered by part number."),
    ("InvalidRange", 416, "The requested range is not satisfiable"),
    ("InvalidRequest", 400, "Invalid Request"),
    ("InvalidStorageClass", 400, "The storage class you specified is not valid"),
    ("InvalidTag", 400, "The tag provided was not a valid tag."),
    ("InvalidToken", 400, "The provided token is malformed or otherwise invalid."),
    ("InvalidURI", 400, "Couldn't parse the specified URI."),
    ("KeyTooLongError", 400, "Your key is too long"),
    (
        "MalformedTrailerError",
        400,
        "The request contained trailing data that was not well-formed or did not conform to our published schema.",
    ),
    ("MalformedXML", 400, "The XML you provided was not well-formed or did not validate against our published schema"),
    ("MetadataTooLarge", 400, "Your metadata headers exceed the maximum allowed metadata size"),
    ("MethodNotAllowed", 405, "The specified method is not allowed against this resource."),
    ("MissingContentLength", 411, "You must provide the Content-Length HTTP header."),
    ("NoSuchBucket", 404, "The specified bucket does not exist"),
    ("NoSuchBucketPolicy", 404, "The bucket policy does not exist"),
    ("NoSuchKey", 404, "The specified key does not exist."),
    ("NoSuchPublicAccessBlockConfiguration", 404, "The public access block configuration was not found"),
    ("NoSuchTagSet", 404, "The TagSet does not exist"),
    (
        "NoSuchUpload",
        404,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or \
         completed.",
    ),
    ("NoSuchVersion", 404, "The specified version does not exist."),
    ("NotImplemented", 501, "A header you provided implies functionality that is not implemented"),
    ("NotModified", 304, "Not Modified"),
    (
        "PermanentRedirect",
        301,
        "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future \
         requests to this endpoint.",
    ),
    ("PreconditionFailed", 412, "At least one of the pre-conditions you specified did not hold"),
    ("RequestTimeTooSkewed", 403, "The difference between the request time and the current time is too large."),
    (
        "SignatureDoesNotMatch",
        403,
        "The request signature we calculated does not match the signature you provided. Check your key and signing \
         method.",
    ),
    ("XAmzContentSHA256Mismatch", 400, "The provided 'x-amz-content-sha256' header does not match what was computed."),
];

/// Codes whose message is S3's, whatever s3s says (its own are for the people who embed it).
const FIXED: &[&str] = &["SignatureDoesNotMatch", "RequestTimeTooSkewed", "InvalidBucketName", "MalformedXML"];

/// An error with S3's message.
pub(super) fn fail(code: &'static str) -> S3Error {
    let message = known(code).map_or("", |k| k.2);
    fail_with(code, message)
}

/// An error with a message of its own.
pub(super) fn fail_with(code: &'static str, message: impl Into<String>) -> S3Error {
    let Ok(parsed) = code.parse::<S3ErrorCode>();
    let mut error = S3Error::with_message(parsed, message.into());
    if let Some((_, status, _)) = known(code)
        && let Ok(status) = StatusCode::from_u16(*status)
    {
        error.set_status_code(status);
    }
    error
}

/// A failure of the disk under us, or the end of the memory that objects may have.
pub(super) fn disk(error: std::io::Error) -> S3Error {
    if error.kind() == std::io::ErrorKind::StorageFull && error.raw_os_error().is_none() {
        // Not a 5xx: clients would try again.
        return fail_with("EntityTooLarge", error.to_string());
    }
    let mut e = fail("InternalError");
    e.set_source(Box::new(error));
    e
}

/// What a failed body stream means. The error types of s3s's streams are private; their texts are not.
pub(super) fn of_body(error: &(dyn std::error::Error + Send + Sync)) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        fail("XAmzContentSHA256Mismatch")
    } else if text.contains("SignatureMismatch") {
        fail("SignatureDoesNotMatch")
    } else if text.contains("FormatError") || text.contains("TooLarge") || text.contains("TooMany") {
        fail_with("InvalidRequest", "The body of the request is not well-formed aws-chunked.")
    } else {
        fail("IncompleteBody")
    }
}

/// An error document as a client gets it.
pub(super) struct Fault<'a> {
    pub(super) status: StatusCode,
    pub(super) code: &'a str,
    pub(super) message: &'a str,
    /// Further elements, name and text.
    pub(super) extra: &'a [(&'a str, &'a str)],
}

/// Request id and host id of one answer: S3's `x-amz-request-id` and `x-amz-id-2`.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    pub(super) request: String,
    pub(super) host: String,
}

/// Renders a refusal; `HEAD` and 304 have no body.
pub(super) fn render(fault: &Fault<'_>, method: &Method, path: &str, ids: &Ids, headers: HeaderMap) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = fault.status;
    *answer.headers_mut() = headers;
    for stale in [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::TRANSFER_ENCODING] {
        answer.headers_mut().remove(stale);
    }
    if fault.status == StatusCode::NOT_MODIFIED {
        return answer;
    }
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    if method == Method::HEAD {
        return answer;
    }
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>");
    let mut element = |name: &str, text: &str| {
        xml.push_str(&format!("<{name}>{}</{name}>", escape(text)));
    };
    element("Code", fault.code);
    element("Message", fault.message);
    for (name, text) in fault.extra {
        element(name, text);
    }
    // S3 does not repeat what the message names.
    let named = fault.extra.iter().any(|(name, _)| matches!(*name, "Key" | "Bucket" | "BucketName"));
    if !named && fault.code != "AccessDenied" {
        element("Resource", path);
    }
    element("RequestId", &ids.request);
    element("HostId", &ids.host);
    xml.push_str("</Error>");
    *answer.body_mut() = Body::from(Bytes::from(xml));
    answer
}

/// Code and message of an error document that s3s wrote, with S3's message where it has none of worth.
pub(super) fn parse(document: &str) -> (String, String) {
    let text_of = |name: &str| {
        let (_, rest) = document.split_once(&format!("<{name}>"))?;
        let (text, _) = rest.split_once(&format!("</{name}>"))?;
        unescape(text).ok().map(std::borrow::Cow::into_owned)
    };
    let code = text_of("Code").unwrap_or_else(|| "InternalError".into());
    // s3s has one word for every fault of a presigned URL; so has S3, another one.
    if document.contains("missing presigned url v4 fields") {
        let code = "AuthorizationQueryParametersError";
        return (code.to_owned(), known(code).map_or_else(String::new, |k| k.2.to_owned()));
    }
    let standard = known(&code).map(|k| k.2);
    let own = text_of("Message").filter(|m| !m.is_empty());
    let message = match (own, standard) {
        (Some(own), _) if !FIXED.contains(&code.as_str()) => own,
        (_, Some(standard)) => standard.to_owned(),
        (own, None) => own.unwrap_or_else(|| code.clone()),
    };
    (code, message)
}

/// S3's status and message of a code.
pub(super) fn known(code: &str) -> Option<&'static (&'static str, u16, &'static str)> {
    KNOWN.iter().find(|k| k.0 == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_of_s3s_get_the_words_of_s3() {
        let (code, message) = parse("<Error><Code>NoSuchKey</Code></Error>");
        assert_eq!((code.as_str(), message.as_str()), ("NoSuchKey", "The specified key does not exist."));
        let (_, message) =
            parse("<Error><Code>SignatureDoesNotMatch</Code><Message>credential scope</Message></Error>");
        assert!(message.starts_with("The request signature we calculated"));
        let (_, message) = parse("<Error><Code>AccessDenied</Code><Message>User: &quot;x&quot;</Message></Error>");
        assert_eq!(message, "User: \"x\"");
    }
}
