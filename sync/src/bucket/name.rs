//! Names of objects, below the bucket's prefix:
//!
//! ```text
//! NODE/want-NUMBER-RANDOM.atoll           what the node has
//! NODE/NUMBER-RANDOM-0001.atoll           a bundle's volumes,
//! NODE/NUMBER-RANDOM-0002-last.atoll      of which the last one says that it is
//! NODE/lacks-NUMBER-RANDOM.atoll          the files that the node asks for
//! NODE/files-NUMBER-RANDOM.atoll          a parcel: files, or a part of one
//! ```
//!
//! NODE is the id of who wrote it. NUMBER is a time in milliseconds, and higher than that of all that the node left before.

use atoll_storage::NodeId;
use std::fmt;

const EXTENSION: &str = ".atoll";
const WANT: &str = "want-";
const LACKS: &str = "lacks-";
const FILES: &str = "files-";
const LAST: &str = "-last";
const NUMBER_DIGITS: usize = 12;
/// That fits in so many digits.
pub(super) const MAX_NUMBER: u64 = (1 << (4 * NUMBER_DIGITS)) - 1;
const RANDOM_DIGITS: usize = 8;

/// Names a bundle, or what a node has: all objects of one beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleName {
    /// Of 48 bits.
    pub number: u64,
    pub random: u32,
    pub node: NodeId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectName {
    Want(BundleName),
    /// `volume` counts from 1.
    Volume {
        bundle: BundleName,
        volume: u32,
        is_last: bool,
    },
    Lacks(BundleName),
    Parcel(BundleName),
}

/// Makes the name of an object that is alone.
type Make = fn(BundleName) -> ObjectName;

impl fmt::Display for BundleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.stem())
    }
}

impl BundleName {
    fn stem(&self) -> String {
        format!("{:0NUMBER_DIGITS$x}-{:0RANDOM_DIGITS$x}", self.number, self.random)
    }

    fn of_stem(node: NodeId, stem: &str) -> Option<Self> {
        let (number, random) = stem.split_once('-')?;
        if number.len() != NUMBER_DIGITS || random.len() != RANDOM_DIGITS {
            return None;
        }
        let number = u64::from_str_radix(number, 16).ok()?;
        let name = Self { number, random: u32::from_str_radix(random, 16).ok()?, node };
        (name.stem() == stem).then_some(name)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (node, stem) = text.split_once('/')?;
        Self::of_stem(NodeId::parse(node)?, stem)
    }
}

impl ObjectName {
    pub fn node(&self) -> NodeId {
        match self {
            Self::Want(name)
            | Self::Lacks(name)
            | Self::Parcel(name)
            | Self::Volume { bundle: name, .. } => name.node,
        }
    }

    /// None for what no node of this layout wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (node, file) = text.split_once('/')?;
        let node = NodeId::parse(node)?;
        let stem = file.strip_suffix(EXTENSION)?;
        let kinds: [(&str, Make); 3] =
            [(WANT, Self::Want), (LACKS, Self::Lacks), (FILES, Self::Parcel)];
        let single = kinds.iter().find_map(|(head, make)| Some((stem.strip_prefix(head)?, make)));
        let name = match single {
            Some((stem, make)) => make(BundleName::of_stem(node, stem)?),
            None => {
                let (stem, is_last) =
                    stem.strip_suffix(LAST).map_or((stem, false), |stem| (stem, true));
                let (stem, volume) = stem.rsplit_once('-')?;
                let volume = volume.parse().ok().filter(|volume| *volume > 0)?;
                Self::Volume { bundle: BundleName::of_stem(node, stem)?, volume, is_last }
            }
        };
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Want(name) => write!(f, "{}/{WANT}{}{EXTENSION}", name.node, name.stem()),
            Self::Lacks(name) => write!(f, "{}/{LACKS}{}{EXTENSION}", name.node, name.stem()),
            Self::Parcel(name) => write!(f, "{}/{FILES}{}{EXTENSION}", name.node, name.stem()),
            Self::Volume { bundle, volume, is_last } => {
                let last = if *is_last { LAST } else { "" };
                write!(f, "{bundle}-{volume:04}{last}{EXTENSION}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_nothing_else_is_one() {
        let node = NodeId([0xab; 16]);
        let bundle = BundleName { number: 0x018f_0000_0001, random: 7, node };
        let volume = |volume, is_last| ObjectName::Volume { bundle, volume, is_last };
        for name in [
            ObjectName::Want(bundle),
            ObjectName::Lacks(bundle),
            ObjectName::Parcel(bundle),
            volume(1, false),
            volume(12_345, true),
        ] {
            assert_eq!(ObjectName::parse(&name.to_string()), Some(name), "{name}");
        }
        assert_eq!(BundleName::parse(&bundle.to_string()), Some(bundle));
        let head = "abababababababababababababababab";
        assert_eq!(
            volume(2, true).to_string(),
            format!("{head}/018f00000001-00000007-0002-last.atoll")
        );
        for foreign in [
            "readme.txt".to_owned(),
            format!("{head}/018f00000001-00000007-0000.atoll"),
            format!("{head}/018f00000001-00000007-2.atoll"),
            format!("{head}/18f00000001-00000007-0001.atoll"),
            format!("{head}/018F00000001-00000007-0001.atoll"),
            format!("{head}/018f00000001-+0000007-0001.atoll"),
            format!("{head}/want-018f00000001-00000007.atoll.part"),
            format!("ab/{head}/want-018f00000001-00000007.atoll"),
        ] {
            assert_eq!(ObjectName::parse(&foreign), None, "{foreign}");
        }
    }
}
