//! The body of a request: whole, bounded in size and time.

use super::App;
use crate::problem::Problem;
use crate::route::Route;
use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

impl App {
    pub(super) async fn read(
        &self,
        body: Body,
        route: &Route,
        headers: &HeaderMap,
    ) -> Result<Bytes, Problem> {
        let limit = route.body_limit_bytes.unwrap_or(self.options.max_body_bytes);
        let too_large = || {
            let message = format!("the body is too large: at most {limit} bytes here");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
        };
        let announced =
            headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > limit as u64) {
            return Err(too_large());
        }
        let collect = async {
            let mut stream = body.into_data_stream();
            let mut first = Bytes::new();
            let mut rest = BytesMut::new();
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(|_| Problem::malformed("the body ended early"))?;
                if first.len() + rest.len() + chunk.len() > limit {
                    return Err(too_large());
                }
                if first.is_empty() {
                    first = chunk;
                } else {
                    rest.extend_from_slice(&chunk);
                }
            }
            if rest.is_empty() {
                return Ok(first);
            }
            let mut whole = BytesMut::with_capacity(first.len() + rest.len());
            whole.extend_from_slice(&first);
            whole.extend_from_slice(&rest);
            Ok(whole.freeze())
        };
        tokio::time::timeout(self.options.timeout, collect).await.unwrap_or_else(|_| {
            Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_too_slow",
                "the body did not come in time",
            ))
        })
    }
}
