//! Inputs that are a list: of each item a kind (1), a length (2, little endian), and so many bytes.

pub fn item(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or_default();
    [&[kind][..], &length.to_le_bytes(), &bytes[..usize::from(length)]].concat()
}

/// The last one may be cut off.
pub fn items(mut data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[kind, low, high], rest) = data.split_first_chunk::<3>()?;
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        data = rest;
        Some((kind, bytes))
    })
}
