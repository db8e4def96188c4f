//! Between protobuf timestamps and [`time::OffsetDateTime`].

use prost_types::Timestamp;
use time::OffsetDateTime;

/// A moment as it is written on the wire.
pub fn to_wire(at: OffsetDateTime) -> Timestamp {
    Timestamp { seconds: at.unix_timestamp(), nanos: at.nanosecond().cast_signed() }
}

/// A moment from the wire; none where it is outside the years 1 to 9999 or not well formed.
pub fn from_wire(at: &Timestamp) -> Option<OffsetDateTime> {
    let nanos = u32::try_from(at.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    OffsetDateTime::from_unix_timestamp(at.seconds)
        .ok()?
        .replace_nanosecond(nanos)
        .ok()
        .filter(|at| at.year() >= 1)
}
