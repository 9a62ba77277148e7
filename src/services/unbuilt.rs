//! A service that the catalogue knows, that has neither a built-in mock nor a backend: says so, after the signature.

use futures::future::BoxFuture;
use http::request::Parts;

use super::errors::{ApiError, Dialect};
use super::http_types::{Request, Response, Service, Verification};
use super::upstream;
use crate::model::catalogue;

pub(super) struct Unbuilt {
    name: String,
}

impl Unbuilt {
    pub(super) fn new(name: &str) -> Unbuilt {
        Unbuilt { name: name.to_owned() }
    }
}

impl Service for Unbuilt {
    fn verification(&self) -> Verification {
        Verification::FrontDoor { scope: None, anonymous: true, max_body: upstream::MAX_BODY }
    }

    fn dialect(&self, head: &Parts) -> Dialect {
        upstream::dialect(&self.name, head)
    }

    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let name = &self.name;
            // The file takes services that an endpoint could lead to.
            let message = if catalogue::service(name).is_some_and(|s| s.endpoint) {
                format!(
                    "vpclab has no built-in {name}; give it a backend: services: {{ {name}: {{ backend: \
                     \"http://127.0.0.1:PORT\" }} }}"
                )
            } else {
                format!("vpclab has no built-in {name}, and this version takes no backend for it")
            };
            let error = ApiError::bad("NotImplemented", message).status(501);
            error.render(self.dialect(&request.head), &request.about.request_id)
        })
    }
}
