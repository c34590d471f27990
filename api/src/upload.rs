//! Files that are too large for memory: received piece by piece, straight into the data folder. The size is bounded by
//! the domain, the number at once here; a sender that falls silent is given up.

use crate::call::Call;
use crate::problem::Problem;
use atoll_node::exchange::Upload;
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use futures_util::StreamExt;
use std::sync::PoisonError;

/// The body of a call, once it is here as a whole.
///
/// # Errors
/// 413 for a file that is too large, 408 for a sender that falls silent, 503 while too many are received.
pub(crate) async fn receive(call: &Call) -> Result<Upload, Problem> {
    let busy = "this node receives as many files as it takes at once: try again shortly";
    let _place = call
        .app
        .uploads
        .clone()
        .try_acquire_owned()
        .map_err(|_| Problem::unavailable("too_many_uploads", busy, 10))?;
    let limit = call.node.config.import.max_bytes;
    let announced = call.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if announced.and_then(|length| length.parse::<u64>().ok()).is_some_and(|bytes| bytes > limit) {
        return Err(too_large(limit));
    }
    let body = call.upload.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut pieces = body.unwrap_or_default().into_data_stream();
    let mut upload = Upload::begin(&call.node).await?;
    loop {
        let piece = tokio::time::timeout(call.app.options.timeout, pieces.next()).await;
        let Some(piece) = piece.map_err(|_| silent())? else { break };
        let piece = piece.map_err(|_| Problem::malformed("the body ended early"))?;
        if upload.size_bytes() + piece.len() as u64 > limit {
            return Err(too_large(limit));
        }
        upload.write(&piece).await?;
    }
    if upload.size_bytes() == 0 {
        return Err(Problem::malformed("the body is empty: send the file as the body"));
    }
    Ok(upload)
}

fn too_large(limit: u64) -> Problem {
    let message = format!("the file is too large: at most {limit} bytes (`import.max_bytes`)");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

fn silent() -> Problem {
    let message = "nothing more of the body came";
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message)
}
