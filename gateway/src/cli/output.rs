//! What commands print: a table for people, one JSON object for programs.

use std::io::{self, Write};

use liaison_proto::times;
use prost_types::Timestamp;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;

/// How a command prints its result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints the JSON form or the text, whichever was asked for.
    ///
    /// # Errors
    /// Nobody reads it, or it found no room.
    pub(super) fn print(self, json: &Value, text: impl FnOnce() -> String) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if self.json {
            writeln!(stdout, "{json:#}")?;
        } else {
            writeln!(stdout, "{}", text().trim_end())?;
        }
        stdout.flush()
    }
}

/// A moment from the wire in RFC 3339, to the second.
pub(super) fn moment(at: Option<&Timestamp>) -> Option<String> {
    times::from_wire(at?)?.replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
}

/// Lays rows out in columns as wide as their widest cell; the last column is not padded.
pub(super) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = header.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = std::iter::once(line(header));
    let body = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    head.chain(body).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let rows = [["be/a".to_owned(), "A".to_owned()], ["be/longer".to_owned(), String::new()]];
        assert_eq!(table(["ADDRESS", "NAME"], &rows), "ADDRESS    NAME\nbe/a       A\nbe/longer");
    }
}
