//! Pictures of users: what is uploaded is decoded, cut to a square and written anew, so that nothing else that the file
//! held is kept or served. The one place of this context that touches an image.

use super::user::{self, AVATAR};
use crate::access::Actor;
use crate::blob::erased;
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::blob::{self, BlobId};
use atoll_storage::tx::Changes;
use atoll_storage::{Id, Record, Value};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, Rgba, RgbaImage};
use std::io::Cursor;
use std::sync::Arc;

/// The largest file that is taken.
pub const MAX_BYTES: usize = 5 << 20;
pub const CONTENT_TYPE: &str = "image/jpeg";

const SIDE: u32 = 256;
const QUALITY: u8 = 85;
/// Larger pictures are refused before they are decoded.
const MAX_SIDE: u32 = 8_192;
const MAX_DECODED_BYTES: u64 = 192 << 20;

/// Takes a JPEG, PNG, WebP or GIF as the actor's picture.
///
/// # Errors
/// `Invalid`: `too_large`, `not_an_image`.
pub async fn upload(node: &Node, actor: &Actor, bytes: Vec<u8>) -> Result<Record> {
    actor.require_session()?;
    let me = user::me(node, actor)?;
    if bytes.len() > MAX_BYTES {
        return Err(Error::field(AVATAR.name, "too_large", "takes at most 5 MiB"));
    }
    let small = node.run_on_pool(move || shrink(&bytes)).await??;
    let small: Arc<[u8]> = small.into();
    let id = BlobId::of(&small);
    erased::forget(node, id).await?;
    keep(node, &small).await?;
    let changes = Changes::new().set(&AVATAR, id.to_string());
    let record = user::put(node, actor, me, changes, "cortex.user.updated").await?;
    // It may have gone with somebody who had the same one and was erased before this was written.
    if node.blobs.path(&id).is_none() {
        keep(node, &small).await?;
    }
    Ok(record)
}

async fn keep(node: &Node, picture: &Arc<[u8]>) -> Result<()> {
    let (blobs, picture) = (node.blobs.clone(), picture.clone());
    node.run_on_pool(move || blobs.put(&picture)).await?.map(drop).map_err(stored)
}

/// # Errors
/// `NotFound` without a picture.
pub async fn remove(node: &Node, actor: &Actor) -> Result<()> {
    actor.require_session()?;
    let me = user::me(node, actor)?;
    me.opt_text(&AVATAR).ok_or(Error::NotFound("avatar"))?;
    let changes = Changes::new().set(&AVATAR, Value::Null);
    user::put(node, actor, me, changes, "cortex.user.updated").await.map(drop)
}

/// The picture that a user of the actor's tenant uploaded.
///
/// # Errors
/// `NotFound` without one, for one that stands elsewhere, and for one whose file no node has; `Unavailable` while the
/// file is on another node alone and cannot be had.
pub async fn get(node: &Node, actor: &Actor, id: Id) -> Result<Vec<u8>> {
    let user = user::get(node, actor, id)?;
    let blob = BlobId::parse(user.text(&AVATAR)).ok_or(Error::NotFound("avatar"))?;
    crate::blob::read(node, &blob, MAX_BYTES, "avatar").await
}

/// A picture that stands elsewhere. What is uploaded is named by its hash, which nobody writes by hand.
pub(crate) fn check_url(url: &str) -> Result<()> {
    let is_http = url.starts_with("https://") || url.starts_with("http://");
    let is_plain = !url.chars().any(|c| c.is_control() || c.is_whitespace() || "<>\"".contains(c));
    if is_http && is_plain {
        return Ok(());
    }
    Err(Error::field(AVATAR.name, "not_a_url", "takes a URL that begins with https:// or http://"))
}

/// Costs processor time.
fn shrink(bytes: &[u8]) -> Result<Vec<u8>> {
    let refuse = || {
        let message =
            format!("must be a JPEG, PNG, WebP or GIF of at most {MAX_SIDE} pixels a side");
        Error::field(AVATAR.name, "not_an_image", message)
    };
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|_| refuse())?;
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|_| refuse())?;
    if decoder.total_bytes() > MAX_DECODED_BYTES {
        return Err(refuse());
    }
    let turned = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|_| refuse())?;
    image.apply_orientation(turned);
    let small = on_white(&square(&image)).to_rgb8();
    let mut written = Vec::with_capacity(32 << 10);
    JpegEncoder::new_with_quality(&mut written, QUALITY)
        .encode_image(&small)
        .map_err(|error| Error::Internal(format!("an avatar could not be written: {error}")))?;
    Ok(written)
}

/// Cut before it is resized: a long strip that was made to fill the square first would be huge.
fn square(image: &DynamicImage) -> DynamicImage {
    let (width, height) = (image.width(), image.height());
    let side = width.min(height);
    let middle = image.crop_imm((width - side) / 2, (height - side) / 2, side, side);
    middle.resize_exact(SIDE, SIDE, FilterType::Triangle)
}

fn on_white(image: &DynamicImage) -> DynamicImage {
    let mut ground = RgbaImage::from_pixel(SIDE, SIDE, Rgba([255; 4]));
    imageops::overlay(&mut ground, &image.to_rgba8(), 0, 0);
    DynamicImage::ImageRgba8(ground)
}

fn stored(error: blob::Error) -> Error {
    match error {
        blob::Error::Full => Error::Store(atoll_storage::Error::Full),
        other => Error::Internal(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::ImageFormat;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let image = DynamicImage::ImageRgba8(RgbaImage::new(width, height));
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_picture_becomes_a_small_square() {
        for (width, height) in [(640, 200), (20, 30), (1, 1), (MAX_SIDE, 1)] {
            let small = shrink(&png(width, height)).unwrap();
            let read = image::load_from_memory(&small).unwrap();
            assert_eq!((read.width(), read.height()), (SIDE, SIDE));
            assert!(small.starts_with(&[0xff, 0xd8]));
        }
    }

    #[test]
    fn a_picture_of_absurd_size_is_refused_by_its_head_alone() {
        let mut bytes = png(1, 1);
        // The head of a PNG holds width and height from byte 16 on, and then a checksum of it.
        bytes[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
        assert_eq!(shrink(&bytes).unwrap_err().code(), "invalid");
        assert!(shrink(&png(MAX_SIDE + 1, 1)).is_err());
        for bad in [&b""[..], b"<svg/>", b"\xff\xd8\xff", &png(9, 9)[..40]] {
            assert!(shrink(bad).is_err());
        }
    }

    #[test]
    fn a_url_is_http_and_nothing_else() {
        assert!(check_url("https://example.org/ada.png?x=1").is_ok());
        for bad in ["", "javascript:alert(1)", "data:image/png;base64,AA", "https://a b", "ada.png"]
        {
            assert!(check_url(bad).is_err(), "{bad}");
        }
        assert!(check_url(&"ab".repeat(32)).is_err());
    }
}
