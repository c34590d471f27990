//! The node as a whole: one struct whose fields are the system, how it is opened, and the workers that keep it going.
//! Holds no rule of the domain.

mod erasing;
mod feeder;
mod folder;
pub mod job;
mod pool;
mod reserve;
mod schedule;
mod upkeep;
mod workers;

pub use folder::{Folder, kept_name};
pub(crate) use folder::{NAME, UNFINISHED};
pub use workers::{Stop, Workers};

use crate::backup;
use crate::bucket;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::kinds;
use crate::mail::Mailer;
use atoll_storage::blob::Blobs;
use atoll_storage::cache::Cache;
use atoll_storage::search::SearchIndex;
use atoll_storage::store::OpenOptions;
use atoll_storage::{Clock, Db, Id, NodeId, Store};
use atoll_sync::blob::Exchange;
use atoll_sync::key::NodeKey;
use atoll_sync::runner::Runner;
use pool::Pool;
use std::sync::{Arc, OnceLock};

/// Raised when documents of the search index come to be made differently: the index is then fed anew.
const SEARCH_SCHEMA: u32 = 2;

pub struct Node {
    pub config: Config,
    pub clock: Clock,
    pub store: Store,
    pub search: Arc<SearchIndex>,
    pub cache: Cache,
    pub blobs: Blobs,
    /// Blobs from and for other nodes.
    pub exchange: Exchange,
    /// Held by whoever drops blobs so that others fit.
    pub(crate) making_room: tokio::sync::Mutex<()>,
    pub identity: Identity,
    pub mail: Mailer,
    pub(crate) backups: backup::kept::Watch,
    pub(crate) buckets: bucket::Watch,
    key: NodeKey,
    sync: OnceLock<Runner>,
    pool: Pool,
    hashing: Pool,
    folder: Folder,
}

impl Node {
    /// Opens the data folder, or makes it, and takes its lock. Nothing runs yet: see [`Node::start`].
    ///
    /// # Errors
    /// `Store(Locked)` if another process holds the folder; `Store(Damaged)` if the database is. A damaged search
    /// index or cache is no error: it is set aside and made anew.
    pub fn open(config: Config) -> Result<Arc<Self>> {
        Self::open_at(config, Clock::system())
    }

    /// As [`Node::open`], with the time from elsewhere.
    pub fn open_at(config: Config, clock: Clock) -> Result<Arc<Self>> {
        let folder = Folder::open(&config.data)?;
        reserve::give_up(folder.path());
        let has_lived = folder.key().exists();
        let key = NodeKey::load_or_create(&folder.key())
            .map_err(|error| Error::Internal(error.to_string()))?;
        if has_lived {
            begin_anew_if_empty(&folder, key.node_id(), &clock)?;
        }
        let store = Store::open(OpenOptions {
            dir: folder.path().to_owned(),
            kinds: kinds::ALL,
            node: key.node_id(),
            clock: clock.clone(),
        })?;
        crate::carries::begin(&store, &config)?;
        let search = Arc::new(open_search(&folder, &store)?);
        let cache = open_cache(&folder, &config)?;
        let blobs = Blobs::open(&folder.blobs()).map_err(|error| {
            Error::Internal(format!(
                "the folder {} cannot be used: {error}",
                folder.blobs().display()
            ))
        })?;
        let exchange = Exchange::over(blobs.clone(), config.blobs.keep_free_bytes);
        let identity = Identity::open(folder.path(), &store, key.node_id())?;
        let mail = Mailer::open(&config.mail)?;
        let (sync, pool, hashing) = (OnceLock::new(), Pool::new()?, Pool::for_hashing()?);
        hold_room(&folder);
        Ok(Arc::new(Self {
            config,
            clock,
            store,
            search,
            cache,
            blobs,
            exchange,
            making_room: tokio::sync::Mutex::default(),
            identity,
            mail,
            backups: backup::kept::Watch::default(),
            buckets: bucket::Watch::default(),
            key,
            sync,
            pool,
            hashing,
            folder,
        }))
    }

    pub fn id(&self) -> NodeId {
        self.key.node_id()
    }

    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// What keeps this node and its peers equal; none before [`Node::start`].
    pub fn sync(&self) -> Option<&Runner> {
        self.sync.get()
    }

    /// Runs work that costs processor time outside the request's thread.
    ///
    /// # Errors
    /// `Store(Busy)` at once if its queue is full.
    pub async fn run_on_pool<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.pool.run(work).await
    }

    /// Runs long work on a thread of its own, which stands back behind all that requests wait for.
    pub(crate) async fn run_in_background<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        Pool::in_background(name)?.run(work).await
    }

    /// Runs the hashing of a password, apart from all other work: a storm of sign-ins holds up nothing but sign-ins.
    ///
    /// # Errors
    /// `Store(Busy)` at once if its queue is full.
    pub(crate) async fn hash<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.hashing.run(work).await
    }

    /// Bytes that nobody can guess. A system that has none stops the process: nothing secret can be made on it.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        if let Err(error) = getrandom::fill(&mut bytes) {
            tracing::error!(%error, "the system gives no random bytes");
            std::process::abort();
        }
        bytes
    }

    /// A new UUIDv7.
    pub fn new_id(&self) -> Id {
        Id::v7(self.clock.now_ms(), self.random())
    }

    /// Feeds the search index with all that waits, on this thread; how many changes that were. For commands that work
    /// on a node whose workers do not run.
    pub fn feed_search(&self) -> Result<u64> {
        let mut fed = 0;
        loop {
            let (count, more) = feeder::feed(self)?;
            fed += count as u64;
            if !more {
                return Ok(fed);
            }
        }
    }

    /// Drops of the log what is old by the settings and packs the rest, as is done every minute; how many ops went.
    pub fn shorten_log(&self) -> Result<u64> {
        Ok(upkeep::shorten_log(self)?)
    }

    /// Figures of the moment for the metrics: name, help, value.
    pub fn figures(&self) -> Vec<(&'static str, &'static str, f64)> {
        upkeep::figures(self)
    }
}

/// A key whose database is gone: what this node wrote before is known elsewhere by its name and number, and must not
/// be named twice. So it begins another life, as after a restore.
fn begin_anew_if_empty(folder: &Folder, node: NodeId, clock: &Clock) -> Result<()> {
    let file = folder.path().join(atoll_storage::store::FILE);
    if std::fs::metadata(&file).is_ok_and(|found| found.len() > 0) {
        return Ok(());
    }
    let origin = Db::open(&file, kinds::ALL, node, clock.clone())?.raise_epoch()?;
    tracing::warn!(
        epoch = origin.epoch,
        "the database is gone, but the node's key is not: the node begins anew"
    );
    Ok(())
}

/// A node without it runs as well.
fn hold_room(folder: &Folder) {
    if let Err(error) = reserve::take(folder.path()) {
        tracing::warn!(%error, "no room could be held for the next start on a full disk");
    }
}

pub(crate) fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}

fn open_search(folder: &Folder, store: &Store) -> Result<SearchIndex> {
    use atoll_storage::search::Opened;
    let open = || SearchIndex::open(&folder.search(), SEARCH_SCHEMA);
    let opened = match open() {
        // It is no folder, or none that can be read.
        Err(why) => {
            let moved_to = folder.set_aside("search").map_err(|_| internal(why))?;
            tracing::warn!(moved_to = %moved_to.display(), "the search index cannot be used, was set aside and is made anew");
            open().map_err(internal)?
        }
        Ok(opened) => opened,
    };
    let (search, opened) = opened;
    if let Opened::SetAside { why, moved_to } = &opened {
        tracing::debug!(%why, moved_to = %moved_to.display(), "the search index is made anew");
    }
    if opened.cursor() == 0 {
        store.mark_all_dirty()?;
    }
    Ok(search)
}

/// What is cached can always be made again, so a folder that does not open is moved away.
fn open_cache(folder: &Folder, config: &Config) -> Result<Cache> {
    let open = || Cache::open(&folder.cache(), config.limits.cache_bytes);
    match open() {
        Ok(cache) => Ok(cache),
        Err(why) => {
            let moved_to = folder.set_aside("cache")?;
            tracing::warn!(%why, moved_to = %moved_to.display(), "the cache was set aside and begins empty");
            open().map_err(internal)
        }
    }
}
