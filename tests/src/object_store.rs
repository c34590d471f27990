//! An S3-compatible store for tests: the crate `s3s` on a loopback port, with signatures checked, over a folder. It writes
//! down what is asked of it, and can be told to fail as networks and stores do.

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub const KEY_ID: &str = "AKIDTIDE";
pub const SECRET_KEY: &str = "SECRET-of-the-tide-pool";
pub const BUCKET: &str = "reef";

/// What the store does with one request, beside what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Closes the connection instead of answering; nothing is stored.
    Cut,
    /// Never answers.
    Hang,
    /// Answers so instead.
    Answer(u16, &'static str),
}

/// By method and path.
type Which = fn(&str, &str) -> bool;

#[derive(Default)]
struct State {
    /// Method and path, in the order in which they came.
    asked: Vec<(String, String)>,
    /// Which request fails: those that it is true for.
    fault: Option<(Which, Fault)>,
    hung: Arc<Notify>,
}

pub struct ObjectStore {
    pub address: SocketAddr,
    folder: TempDir,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

impl ObjectStore {
    pub async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let serving = serve(listener, folder.path().to_owned(), state.clone());
        Self { address, folder, state, serving }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// As if the network were gone.
    pub async fn close(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }

    /// At the same port as before.
    pub async fn reopen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serving = serve(listener, self.folder.path().to_owned(), self.state.clone());
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this becomes of requests that `of` is true for.
    pub fn fail(&self, of: Which, fault: Fault) {
        self.state().fault = Some((of, fault));
    }

    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// Waits for a request that is never answered.
    pub async fn hung(&self) {
        let hung = self.state().hung.clone();
        hung.notified().await;
    }

    /// Method and path of all requests since the last call.
    pub fn asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.state().asked)
    }

    /// Where the bucket's objects lie.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// All files of the bucket, by their paths in it.
    pub fn objects(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut open = vec![self.bucket()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let name = path.strip_prefix(self.bucket()).unwrap();
                    all.push(name.to_string_lossy().into_owned());
                }
            }
        }
        all.sort();
        all
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn serve(listener: TcpListener, folder: PathBuf, state: Arc<Mutex<State>>) -> JoinHandle<()> {
    let service = {
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY_ID, SECRET_KEY));
        builder.build()
    };
    tokio::spawn(async move {
        // Those that are open end with the server.
        let mut open = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (service, state) = (service.clone(), state.clone());
            open.spawn(async move {
                let answer =
                    service_fn(move |request| answer(service.clone(), state.clone(), request));
                let http = hyper::server::conn::http1::Builder::new();
                // One that was cut on purpose ends with an error.
                let _ = http.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    })
}

type Asked = hyper::Request<hyper::body::Incoming>;
type Given = hyper::Response<s3s::Body>;
type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn answer(
    service: S3Service,
    state: Arc<Mutex<State>>,
    request: Asked,
) -> Result<Given, Failed> {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let (fault, hung) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = state.fault.filter(|(of, _)| of(&method, &path)).map(|(_, fault)| fault);
        state.asked.push((method, path));
        (fault, state.hung.clone())
    };
    match fault {
        None => service
            .call(request.map(s3s::Body::from))
            .await
            .map_err(|error| format!("{error:?}").into()),
        Some(Fault::Cut) => Err("cut on purpose".into()),
        Some(Fault::Hang) => {
            hung.notify_one();
            std::future::pending().await
        }
        Some(Fault::Answer(status, text)) => {
            let body = s3s::Body::from(text.to_owned());
            Ok(hyper::Response::builder().status(status).body(body)?)
        }
    }
}
