//! Who a node is: its Ed25519 key pair, the file that keeps it, and the public keys of others.
//! Never prints or hands out a private key, never writes over a key file, never mends its permissions silently.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use atoll_storage::id::NodeId;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub const PUBLIC_KEY_BYTES: usize = 32;
pub const SIGNATURE_BYTES: usize = 64;

/// An Ed25519 key in PKCS8 takes 85 bytes; what is far longer is another file.
const MAX_KEY_FILE_BYTES: u64 = 4096;

/// The public half of a node's key. Two nodes know each other by it, and by nothing else.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode,
)]
pub struct PublicKey(pub [u8; PUBLIC_KEY_BYTES]);

impl PublicKey {
    pub fn node_id(&self) -> NodeId {
        NodeId::of_public_key(&self.0)
    }

    /// Fails with [`KeyError::Signature`] unless the owner of this key signed exactly `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .map_err(|_| KeyError::Signature(*self))
    }
}

/// [`PublicKey::verify`] as a function.
pub fn verify(public: &PublicKey, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
    public.verify(message, signature)
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let digits = text.trim().as_bytes();
        if digits.len() != 2 * PUBLIC_KEY_BYTES {
            return Err(KeyError::Text);
        }
        let mut key = [0; PUBLIC_KEY_BYTES];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Ok(Self(key))
    }
}

fn hex_digit(digit: u8) -> Result<u8, KeyError> {
    char::from(digit).to_digit(16).map(|value| value as u8).ok_or(KeyError::Text)
}

/// A node's own key pair. Cloning shares it.
#[derive(Clone)]
pub struct NodeKey {
    pair: Arc<Ed25519KeyPair>,
    public: PublicKey,
}

impl NodeKey {
    pub fn generate() -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Random)?;
        Self::from_pair(pair).ok_or(KeyError::Random)
    }

    /// The key of which this is the secret: for nodes of a simulation, which are the same each time.
    pub fn of_secret(secret: &[u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(secret).map_err(|_| KeyError::Random)?;
        Self::from_pair(pair).ok_or(KeyError::Random)
    }

    /// Reads the key at `path`, or makes one there, mode 0600, on disk before this returns.
    /// The caller holds the lock of the folder: two processes at once could each make a key.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match File::open(path) {
            Ok(file) => Self::read(path, &file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path),
            Err(source) => Err(KeyError::Io { path: path.to_owned(), source }),
        }
    }

    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub fn node_id(&self) -> NodeId {
        self.public.node_id()
    }

    /// Callers begin `message` with a text that says what is signed, so that a signature made for one thing
    /// never fits another.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let signature = self.pair.sign(message);
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes.copy_from_slice(signature.as_ref());
        bytes
    }

    /// The private key in PKCS8, for the TLS stack and the key file only.
    pub(crate) fn pkcs8(&self) -> Result<Vec<u8>, KeyError> {
        let document = self.pair.to_pkcs8().map_err(|_| KeyError::Random)?;
        Ok(document.as_ref().to_vec())
    }

    /// A secret that only this key gives, another one for each `context`.
    pub(crate) fn derive_secret(&self, context: &str) -> Result<[u8; 32], KeyError> {
        Ok(blake3::derive_key(context, &self.pkcs8()?))
    }

    fn from_pair(pair: Ed25519KeyPair) -> Option<Self> {
        let public = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair: Arc::new(pair), public })
    }

    fn read(path: &Path, file: &File) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io { path: path.to_owned(), source };
        let metadata = file.metadata().map_err(failed)?;
        refuse_if_readable_by_others(path, &metadata)?;
        let mut bytes = Vec::new();
        file.take(MAX_KEY_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        Ed25519KeyPair::from_pkcs8(&bytes)
            .ok()
            .and_then(Self::from_pair)
            .ok_or_else(|| KeyError::Damaged { path: path.to_owned() })
    }

    fn create(path: &Path) -> Result<Self, KeyError> {
        let key = Self::generate()?;
        write_durably(path, &key.pkcs8()?)
            .map_err(|source| KeyError::Io { path: path.to_owned(), source })?;
        Ok(key)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.public)
    }
}

/// Beside the file, under its name with `.new`, then into place: a cut never leaves half a key.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let draft = path.with_file_name(name);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private_file(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_folder_of(path)
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Without it the new name can be lost at a power cut. Only Unix lets a folder be opened for this.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(unix)]
fn refuse_if_readable_by_others(path: &Path, metadata: &fs::Metadata) -> Result<(), KeyError> {
    const OTHERS: u32 = 0o077;
    let mode = std::os::unix::fs::MetadataExt::mode(metadata) & 0o777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    Err(KeyError::Exposed { path: path.to_owned(), mode })
}

#[cfg(not(unix))]
fn refuse_if_readable_by_others(_: &Path, _: &fs::Metadata) -> Result<(), KeyError> {
    Ok(())
}

#[derive(Debug, Error)]
pub enum KeyError {
    #[error("cannot read or write the node key {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "the node key {} can be used by other accounts (mode {mode:03o}): run `chmod 600` on it, and if somebody \
         may have copied it, move it away, start again with a new key and revoke the old one on the other nodes",
        path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error(
        "{} is not an Ed25519 key in PKCS8: put it back from a backup, or move it away to start with a new \
         identity, which the other nodes must then be told of",
        path.display()
    )]
    Damaged { path: PathBuf },
    #[error("the system gave no random bytes for a key: check the machine, then start again")]
    Random,
    #[error("the signature was not made by {0} over these bytes")]
    Signature(PublicKey),
    #[error("a public key is written as 64 hexadecimal digits")]
    Text,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_read_again() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("node.key");
        let made = NodeKey::load_or_create(&path)?;
        let read = NodeKey::load_or_create(&path)?;
        assert_eq!(made.public(), read.public());
        assert_eq!(made.node_id(), NodeId::of_public_key(&made.public().0));
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn a_draft_left_by_a_cut_is_written_anew() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("node.key.new"), b"half a k")?;
        NodeKey::load_or_create(&folder.path().join("node.key"))?;
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_is_private_and_one_that_is_not_is_refused()
    -> Result<(), Box<dyn std::error::Error>> {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("node.key");
        NodeKey::load_or_create(&path)?;
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
        let refused = NodeKey::load_or_create(&path);
        assert!(matches!(&refused, Err(KeyError::Exposed { mode: 0o640, .. })), "{refused:?}");
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o640);
        Ok(())
    }

    #[test]
    fn a_damaged_key_file_is_refused_and_left_as_it_is() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("node.key");
        NodeKey::load_or_create(&path)?;
        let whole = fs::read(&path)?;
        let mut other_public = whole.clone();
        if let Some(last) = other_public.last_mut() {
            *last ^= 1;
        }
        for damaged in [&whole[..whole.len() - 1], &[], &other_public[..], &[0x30; 9000]] {
            fs::write(&path, damaged)?;
            let refused = NodeKey::load_or_create(&path);
            assert!(matches!(&refused, Err(KeyError::Damaged { .. })), "{refused:?}");
            assert_eq!(fs::read(&path)?, damaged);
        }
        Ok(())
    }

    #[test]
    fn a_signature_fits_one_key_and_one_message() -> Result<(), KeyError> {
        let (key, other) = (NodeKey::generate()?, NodeKey::generate()?);
        let signature = key.sign(b"tide");
        key.public().verify(b"tide", &signature)?;
        assert!(verify(&key.public(), b"tides", &signature).is_err());
        assert!(verify(&other.public(), b"tide", &signature).is_err());
        assert!(verify(&key.public(), b"tide", &signature[..63]).is_err());
        Ok(())
    }

    #[test]
    fn a_public_key_reads_back_from_its_text() -> Result<(), KeyError> {
        let public = NodeKey::generate()?.public();
        assert_eq!(public.to_string().parse::<PublicKey>()?, public);
        for wrong in ["", "12", &"g".repeat(64), &"é".repeat(32)] {
            assert!(wrong.parse::<PublicKey>().is_err());
        }
        Ok(())
    }

    #[test]
    fn debug_output_holds_no_private_key() -> Result<(), KeyError> {
        let key = NodeKey::generate()?;
        assert_eq!(format!("{key:?}"), format!("NodeKey({})", key.public()));
        Ok(())
    }
}
