//! `migrate`

use std::fs;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Failure, init::no_database, output::Output};
use crate::{
    config::{Config, DatabaseUrl},
    data::{DataFolder, write_private},
    store::{Database, MigrateError, Moved, migrate},
};

/// What keeps a gateway's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// A file in the data folder
    Sqlite,
    /// A database of a PostgreSQL server
    Postgres,
}

/// A move.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where everything is
    #[arg(long, value_enum, value_name = "ENGINE")]
    from: Engine,
    /// Where it goes
    #[arg(long, value_enum, value_name = "ENGINE")]
    to: Engine,
    /// The empty database that it goes to: postgres://USER@HOST:PORT/NAME
    #[arg(long, value_name = "URL")]
    database: String,
}

pub(super) async fn execute(folder: &DataFolder, arguments: Arguments, output: Output) -> anyhow::Result<()> {
    let Arguments { from: Engine::Sqlite, to: Engine::Postgres, database } = arguments else {
        return Err(Failure::wrong_use(
            "a gateway is moved from a file to a server, and not in any other way",
            "say `--from sqlite --to postgres`",
        )
        .into());
    };
    let config = Config::load(&folder.config())?;
    let _alone = folder.lock()?;
    let before = config.database(folder);
    let Database::Sqlite(file) = &before else {
        let message = format!("everything is in {before} already");
        return Err(Failure::failed("moved", message, "run the gateway as it is").into());
    };
    let database = DatabaseUrl::try_from(database).map_err(no_database)?;
    let config = Config { database: Some(database), ..config };
    let after = config.database(folder);
    let moved = migrate(&before, &after).await.map_err(|error| {
        let action = match &error {
            MigrateError::NotEmpty => "make a new one with `createdb`; nothing was changed",
            _ => "the gateway runs on as it was, from the file; before you try again make a new database with `createdb`",
        };
        Failure::failed("not_moved", error.to_string(), action)
    })?;
    write_private(&folder.config(), config.to_toml()?.as_bytes())?;
    // A gateway does not come upon it any more, and whoever wants to go back has it.
    let kept = file.with_extension("db.moved");
    fs::rename(file, &kept)?;
    if fs::exists(file.with_extension("db-wal"))? {
        fs::rename(file.with_extension("db-wal"), file.with_extension("db.moved-wal"))?;
    }
    let json = json!({
        "from": before.to_string(),
        "to": after.to_string(),
        "kept": kept,
        "tables": moved.tables.iter().map(|(table, contents)| {
            json!({"table": table, "rows": contents.rows, "digest": contents.digest.to_string()})
        }).collect::<Vec<_>>(),
        "logs": moved.heads.iter().map(|(kind, number, size, checkpoint)| {
            let head = checkpoint.as_deref().map(String::from_utf8_lossy);
            json!({"origin": format!("{}/{}/{number}", config.domain, kind.name()), "size": size, "head": head})
        }).collect::<Vec<_>>(),
    });
    output.print(&json, || told(&moved, &config, &after, &kept.display().to_string()))?;
    Ok(())
}

fn told(moved: &Moved, config: &Config, after: &Database, kept: &str) -> String {
    let rows: u64 = moved.tables.iter().map(|(_, contents)| contents.rows).sum();
    let mut lines = vec![format!(
        "All {rows} rows of {} tables are in {after}; read again there, they are those of the file.",
        moved.tables.len()
    )];
    for (kind, number, size, _) in &moved.heads {
        let origin = format!("{}/{}/{number}", config.domain, kind.name());
        lines.push(format!("{origin}: {size} leaves under the same head."));
    }
    lines.push(format!(
        "Run the gateway. Once it does well, delete {kept}: what agencies have fetched since stands in it."
    ));
    lines.join("\n")
}
