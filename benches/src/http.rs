//! An HTTP/1.1 client on one kept connection, as small as a load generator needs that shares two cores with the
//! server. It must never buffer more than its limits, whatever the server sends.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const HEAD_LIMIT_BYTES: usize = 16 * 1024;
const BODY_LIMIT_BYTES: usize = 8 * 1024 * 1024;
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
pub enum HttpError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the server closed the connection inside an answer")]
    Closed,
    #[error("no answer within {} s", ANSWER_WITHIN.as_secs())]
    Timeout,
    #[error("the answer's head is longer than {HEAD_LIMIT_BYTES} bytes")]
    HeadTooLong,
    #[error("the answer's body is longer than {BODY_LIMIT_BYTES} bytes")]
    BodyTooLong,
    #[error("the answer is not one this client reads: {0}")]
    Unreadable(&'static str),
}

/// A kept connection and the last answer.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    body_from: usize,
    closing: bool,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self, HttpError> {
        let stream = timeout(ANSWER_WITHIN, TcpStream::connect(address))
            .await
            .map_err(|_| HttpError::Timeout)??;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(HEAD_LIMIT_BYTES),
            body_from: 0,
            closing: false,
        })
    }

    /// Sends one request as it stands and reads its whole answer. After an `Err` the connection is of no more use.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<u16, HttpError> {
        timeout(ANSWER_WITHIN, self.exchange_unbounded(request))
            .await
            .map_err(|_| HttpError::Timeout)?
    }

    /// The body of the last answer.
    pub fn body(&self) -> &[u8] {
        &self.buffer[self.body_from..]
    }

    /// True when the server said that it closes the connection after the last answer.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    async fn exchange_unbounded(&mut self, request: &[u8]) -> Result<u16, HttpError> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        let head_end = self.read_head().await?;
        let head = Head::parse(&self.buffer[..head_end])?;
        let whole = head_end + head.body_bytes;
        while self.buffer.len() < whole {
            self.read_some().await?;
        }
        if self.buffer.len() > whole {
            return Err(HttpError::Unreadable("bytes follow the body"));
        }
        self.body_from = head_end;
        self.closing = head.closing;
        Ok(head.status)
    }

    async fn read_head(&mut self) -> Result<usize, HttpError> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.buffer[searched..], b"\r\n\r\n") {
                return Ok(searched + at + 4);
            }
            if self.buffer.len() > HEAD_LIMIT_BYTES {
                return Err(HttpError::HeadTooLong);
            }
            searched = self.buffer.len().saturating_sub(3);
            self.read_some().await?;
        }
    }

    async fn read_some(&mut self) -> Result<(), HttpError> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(HttpError::Closed),
            _ => Ok(()),
        }
    }
}

struct Head {
    status: u16,
    body_bytes: usize,
    closing: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self, HttpError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| HttpError::Unreadable("the head is not UTF-8"))?;
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 "))
            .and_then(|line| line.get(..3))
            .and_then(|code| code.parse().ok())
            .ok_or(HttpError::Unreadable("no HTTP/1.1 status line"))?;
        let mut length = None;
        let mut closing = false;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(
                    value
                        .trim()
                        .parse::<usize>()
                        .map_err(|_| HttpError::Unreadable("a bad content-length"))?,
                );
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(HttpError::Unreadable(
                    "a body in chunks; ask for a resource of known length",
                ));
            } else if name.eq_ignore_ascii_case("connection") {
                closing = value.trim().eq_ignore_ascii_case("close");
            }
        }
        let bodiless = status < 200 || status == 204 || status == 304;
        let body_bytes = match length {
            _ if bodiless => 0,
            Some(length) if length > BODY_LIMIT_BYTES => return Err(HttpError::BodyTooLong),
            Some(length) => length,
            None => {
                return Err(HttpError::Unreadable("neither a content-length nor an empty answer"));
            }
        };
        Ok(Self { status, body_bytes, closing })
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The bytes of a request without a body.
pub fn get(host: &str, path: &str, token: Option<&str>) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: application/json\r\n{}\r\n",
        bearer(token)
    )
    .into_bytes()
}

/// The bytes of a request with a JSON body.
pub fn post(host: &str, path: &str, token: Option<&str>, body: &str) -> Vec<u8> {
    let (length, bearer) = (body.len(), bearer(token));
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\naccept: application/json\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{bearer}\r\n{body}"
    )
    .into_bytes()
}

fn bearer(token: Option<&str>) -> String {
    token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A server of one connection that answers each request with the next of `answers`, in the given pieces.
    async fn serve(answers: Vec<Vec<&'static [u8]>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4_096];
            for pieces in answers {
                assert_ne!(stream.read(&mut request).await.unwrap(), 0, "the client hung up");
                for piece in pieces {
                    stream.write_all(piece).await.unwrap();
                    stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn answers_in_pieces_are_read_whole_on_one_connection() {
        let address = serve(vec![
            vec![b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 5\r\n\r", b"\nhel", b"lo"],
            vec![b"HTTP/1.1 304 Not Modified\r\n\r\n"],
            vec![b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno"],
        ])
        .await;
        let mut connection = Connection::open(address).await.unwrap();
        let request = get("localhost", "/", None);
        assert_eq!(connection.exchange(&request).await.unwrap(), 200);
        assert_eq!(connection.body(), b"hello");
        assert_eq!(connection.exchange(&request).await.unwrap(), 304);
        assert_eq!(connection.body(), b"");
        assert_eq!(connection.exchange(&request).await.unwrap(), 404);
        assert!(connection.is_closing());
        assert!(matches!(
            connection.exchange(&request).await,
            Err(HttpError::Closed | HttpError::Io(_))
        ));
    }

    #[tokio::test]
    async fn an_answer_that_announces_too_much_is_refused_before_it_is_read() {
        let address =
            serve(vec![vec![b"HTTP/1.1 200 OK\r\ncontent-length: 4294967296\r\n\r\n"]]).await;
        let mut connection = Connection::open(address).await.unwrap();
        assert!(matches!(connection.exchange(b"GET").await, Err(HttpError::BodyTooLong)));
    }

    #[test]
    fn a_request_carries_its_length_and_token() {
        let request = String::from_utf8(post("h", "/p", Some("t"), "{}")).unwrap();
        assert!(request.contains("content-length: 2\r\nauthorization: Bearer t\r\n\r\n{}"));
    }
}
