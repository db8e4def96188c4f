//! Latencies as a picture: how many milliseconds a message took, over the share of messages that took less.

use std::fmt::Write as _;

use crate::report::{Summary, milliseconds};

/// The picture and the place of the axes in it, pixels.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 540.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 780.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 490.0;
/// Nines of the last percentile, and powers of ten of the milliseconds.
const NINES: f64 = 4.0;
const LEAST: f64 = -2.0;
const MOST: f64 = 4.0;
/// Steps to one nine.
const STEPS: u32 = 25;
const COLOURS: [&str; 9] =
    ["#1b6ca8", "#d1495b", "#2a9d4e", "#e08e45", "#7b4fa3", "#3aa6a6", "#8c6d31", "#555555", "#c2479c"];

/// An SVG of all runs.
pub(crate) fn svg(summaries: &[Summary]) -> String {
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for (nines, label) in (0..).zip(["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]) {
        let x = across(f64::from(nines));
        line(&mut text, (x, TOP), (x, BOTTOM));
        words(&mut text, (x - 15.0, BOTTOM + 20.0), "black", label);
    }
    for (power, label) in (-2..).zip(["0.01 ms", "0.1 ms", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]) {
        let y = up(f64::from(power));
        line(&mut text, (LEFT, y), (RIGHT, y));
        words(&mut text, (5.0, y + 4.0), "black", label);
    }
    for ((run, colour), place) in summaries.iter().zip(COLOURS.iter().cycle()).zip(0..) {
        let points: Vec<String> = (0..=STEPS * NINES as u32)
            .map(|step| {
                let nines = f64::from(step) / f64::from(STEPS);
                let took = milliseconds(&run.delivered, 1.0 - 10f64.powf(-nines));
                format!("{:.1},{:.1}", across(nines), up(took.max(1e-9).log10()))
            })
            .collect();
        // Writing to a text does not fail.
        let _ = writeln!(
            text,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            points.join(" ")
        );
        let y = TOP + 20.0 * f64::from(place) + 15.0;
        words(&mut text, (RIGHT + 15.0, y), colour, &format!("{}, {:.0}/s", run.name, run.rate));
    }
    text + "</svg>\n"
}

fn across(nines: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * nines / NINES
}

fn up(power: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * (power.clamp(LEAST, MOST) - LEAST) / (MOST - LEAST)
}

fn line(text: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(text, "<path d=\"M{x1:.1} {y1:.1} L{x2:.1} {y2:.1}\" stroke=\"#dddddd\"/>");
}

fn words(text: &mut String, (x, y): (f64, f64), colour: &str, words: &str) {
    let _ = writeln!(text, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{words}</text>");
}
