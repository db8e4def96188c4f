//! The paths of tiles and entry bundles (C2SP tlog-tiles): `<N>[.p/<W>]`, where `<N>` is written in
//! groups of three digits, all but the last with an `x` before them.

use std::fmt::Write as _;

/// How many hashes a full tile has, and how many entries a full bundle.
pub(super) const FULL: u16 = 256;
/// Above the index of every tile of a log of less than 2^63 leaves.
pub(super) const INDEXES: u64 = 1 << 55;

/// A text that is not the path of a tile or an entry bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tile's path is tile/<L>/<N>[.p/<W>] or tile/entries/<N>[.p/<W>] as C2SP's tlog-tiles has it")]
pub struct PathError;

/// `<N>[.p/<W>]`
pub(super) fn write(index: u64, width: u16) -> String {
    let mut groups = vec![index % 1000];
    let mut rest = index / 1000;
    while rest > 0 {
        groups.push(rest % 1000);
        rest /= 1000;
    }
    let mut path = String::new();
    for (place, group) in groups.iter().enumerate().rev() {
        // Writing to a string does not fail.
        let _ = if place == 0 { write!(path, "{group:03}") } else { write!(path, "x{group:03}/") };
    }
    if width != FULL {
        let _ = write!(path, ".p/{width}");
    }
    path
}

/// Reads what [`write()`] writes, and nothing else: one tile has one path.
pub(super) fn read(path: &str) -> Result<(u64, u16), PathError> {
    let (number, width) = match path.split_once(".p/") {
        Some((number, width)) => (number, decimal(width).ok_or(PathError)?),
        None => (path, u64::from(FULL)),
    };
    let mut index: u64 = 0;
    for group in number.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        let digits: u64 = digits.parse().map_err(|_| PathError)?;
        index = index.checked_mul(1000).and_then(|index| index.checked_add(digits)).ok_or(PathError)?;
    }
    let width = u16::try_from(width).map_err(|_| PathError)?;
    let valid = index < INDEXES && (1..=FULL).contains(&width) && write(index, width) == path;
    if valid { Ok((index, width)) } else { Err(PathError) }
}

/// A decimal number in ASCII, without a sign or leading zeros.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if canonical && digits { text.parse().ok() } else { None }
}
