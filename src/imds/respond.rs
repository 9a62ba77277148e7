//! One request in, one response out: methods, tokens, status codes (EC2 User Guide, "Use IMDSv2", response codes).

use crate::base::UnixTime;

use super::token::{MAX_TTL, Tokens};
use super::tree::{self, Found, VERSIONS, View};

/// A request without its body, which means nothing here.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// Without query string.
    pub(super) path: &'a str,
    /// `X-aws-ec2-metadata-token`.
    pub(super) token: Option<&'a str>,
    /// `X-aws-ec2-metadata-token-ttl-seconds`.
    pub(super) ttl: Option<&'a str>,
    /// `X-Forwarded-For` is there: the request came through a proxy.
    pub(super) forwarded: bool,
}

pub(super) struct Response {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
    /// Seconds that the token is good for, in the header of the same name.
    pub(super) token_ttl: Option<u64>,
    pub(super) allow: Option<&'static str>,
    pub(super) location: Option<String>,
    /// Has `Last-Modified` and `Accept-Ranges`.
    pub(super) data: bool,
    /// A HEAD request: say how long the body would be and leave it out.
    pub(super) head_only: bool,
    /// The answer to a token PUT, whose packets carry the instance's hop limit as their TTL.
    pub(super) token_answer: bool,
}

impl Response {
    /// An error as EC2 words it, in XHTML.
    pub(super) fn error(status: u16) -> Response {
        Response { status, content_type: "text/html", body: page(status), ..Response::ok(String::new(), "text/html") }
    }

    fn ok(body: String, content_type: &'static str) -> Response {
        Response {
            status: 200,
            content_type,
            body,
            token_ttl: None,
            allow: None,
            location: None,
            data: false,
            head_only: false,
            token_answer: false,
        }
    }
}

pub(super) fn respond(request: &Request<'_>, now: UnixTime, view: &View<'_>, tokens: &mut Tokens) -> Response {
    if is_token_path(request.path) {
        return token_path(request, now, tokens);
    }
    let head_only = match request.method {
        "GET" => false,
        "HEAD" => true,
        "OPTIONS" => return Response { allow: Some(DATA_METHODS), ..Response::ok(String::new(), "text/plain") },
        _ => return Response { allow: Some(DATA_METHODS), ..Response::error(405) },
    };
    let required = view.plan.instances.get(view.instance).is_none_or(|i| i.imds_v2_required);
    let token_ttl = match request.token {
        // A bad token is refused even where none is needed.
        Some(token) => match tokens.check(now, token.as_bytes()) {
            Some(left) => Some(left),
            None => return Response { head_only, ..Response::error(401) },
        },
        None if required => return Response { head_only, ..Response::error(401) },
        None => None,
    };
    let mut response = match tree::find(view, request.path) {
        Found::Leaf(leaf) => Response { data: true, ..Response::ok(leaf.body, leaf.content_type) },
        Found::Listing(names) => Response { data: true, ..Response::ok(names, "text/plain") },
        Found::NeedsSlash => {
            Response { location: Some(format!("http://169.254.169.254{}/", request.path)), ..Response::error(301) }
        }
        Found::Nothing => Response::error(404),
    };
    response.token_ttl = token_ttl;
    response.head_only = head_only;
    response
}

const DATA_METHODS: &str = "OPTIONS, GET, HEAD";
const TOKEN_METHODS: &str = "OPTIONS, PUT";

fn is_token_path(path: &str) -> bool {
    path.strip_prefix('/')
        .and_then(|p| p.strip_suffix("/api/token"))
        .is_some_and(|version| version == "latest" || VERSIONS.contains(&version))
}

fn token_path(request: &Request<'_>, now: UnixTime, tokens: &mut Tokens) -> Response {
    match request.method {
        "PUT" => {}
        "OPTIONS" => return Response { allow: Some(TOKEN_METHODS), ..Response::ok(String::new(), "text/plain") },
        method => {
            return Response { allow: Some(TOKEN_METHODS), head_only: method == "HEAD", ..Response::error(405) };
        }
    }
    // A proxy that passes on a PUT is what version 2 protects from.
    if request.forwarded {
        return Response { token_answer: true, ..Response::error(403) };
    }
    let ttl = request.ttl.filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
    let Some(ttl) = ttl.and_then(|t| t.parse::<u32>().ok()).filter(|t| (1..=MAX_TTL).contains(t)) else {
        return Response { token_answer: true, ..Response::error(400) };
    };
    let token = tokens.issue(now, ttl);
    Response {
        token_ttl: Some(u64::from(ttl)),
        token_answer: true,
        ..Response::ok(String::from_utf8_lossy(&token).into_owned(), "text/plain")
    }
}

pub(super) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        431 => "Request Header Fields Too Large",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

fn page(status: u16) -> String {
    let title = format!("{status} - {}", reason(status));
    format!(
        "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n\
         <!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n\
         \t\"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n\
         <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n \
         <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n </body>\n</html>\n"
    )
}
