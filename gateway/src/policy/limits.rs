//! Limits on a policy set and on what is remembered of its decisions.

/// Files of one policy set, tests included.
pub const FILES: usize = 2_048;
/// One file, bytes.
pub const FILE_BYTES: usize = 256 << 10;
/// All files of one policy set, bytes.
pub const SET_BYTES: usize = 8 << 20;
/// Policies of one set.
pub const POLICIES: usize = 10_000;
/// Tests of one set.
pub const TESTS: usize = 20_000;
/// A path inside a policy folder, bytes.
pub const PATH_BYTES: usize = 512;
/// A policy's `@id`, characters.
pub const ID_CHARS: usize = 64;
/// Any other annotation, characters.
pub const ANNOTATION_CHARS: usize = 1_000;
/// Policies of one layer that are named for permitting a category; by their names, the first.
pub const PERMITS: usize = 4;
/// Faults that one refusal of a set lists.
pub const FAULTS: usize = 50;
/// Remembered answers about messages, and as many about categories, about naming what was withheld, and
/// about who may be discovered. One takes about 1 KiB, most of it
/// the texts of the rule that refuses.
pub const CACHED_ANSWERS: usize = 16_384;
