//! Tells how many times as long local traffic takes while a peer is dead and its queue grows:
//! `cargo run -p liaison-tests --example dead_peer -- [--json] [--rounds N] [--messages N]`, with the gateway and
//! the agent built before, in the same profile.

use anyhow::{Context, Result};
use liaison_tests::dead_peer::measure;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: usize| -> Result<usize> {
        let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(default) };
        let text = arguments.get(at + 1).with_context(|| format!("{name} takes a number"))?;
        text.parse().with_context(|| format!("{name} {text} is no number"))
    };
    let measured = measure(number("--rounds", 20)?, number("--messages", 50)?).await?;
    let json = measured.to_json();
    if arguments.iter().any(|argument| argument == "--json") {
        println!("{json}");
    } else {
        println!("Local traffic takes {:.2} times as long while a peer is dead.", measured.ratio());
        println!("{json}");
    }
    Ok(())
}
