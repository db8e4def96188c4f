//! Tables for people.

use std::io::{self, Write};

/// Prints rows under their titles, each column as wide as its widest cell.
pub(super) fn print<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    write!(io::stdout(), "{}", lay_out(titles, rows))
}

fn lay_out<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    let titles = titles.map(str::to_owned);
    let all = || std::iter::once(&titles).chain(rows);
    let widths: [usize; N] = std::array::from_fn(|column| {
        all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    all().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_one_another() {
        let rows = [["é".to_owned(), "1".to_owned()], ["longer".to_owned(), String::new()]];
        assert_eq!(lay_out(["a", "b"], &rows), "a       b\né       1\nlonger\n");
    }
}
