//! Policy sets for tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// Everything is permitted, nothing needs a person's release, and every domain sees every agency.
pub const OPEN: &str = r#"
@id("open-message") @owner("tests") @legal_basis("none") @explain("Every message may go to everybody.")
permit(principal, action in [Action::"submit", Action::"receive"], resource);

@id("open-discover") @owner("tests") @legal_basis("none") @explain("Every domain knows of every agency.")
permit(principal, action == Action::"discover", resource);

@id("open-share") @owner("tests") @legal_basis("none") @explain("Every category may go to everybody.")
permit(principal, action in Action::"share_all", resource);

@id("open-obligations") @owner("tests") @legal_basis("none") @explain("No obligation binds.")
permit(
  principal,
  action in [
    Action::"auto_release", Action::"onward_share", Action::"name_withheld", Action::"retain_2y",
    Action::"use_as_evidence"
  ],
  resource
);
"#;

/// A layer besides the scheme that lets everything through.
pub const PASS: &str = r#"
@id("pass") @owner("tests") @legal_basis("none") @explain("This layer adds nothing.")
permit(principal, action, resource);
"#;

/// [`PASS`], except that one category is withheld.
pub fn layer_without(id: &str, category: &str) -> String {
    format!("{PASS}\n{}", forbid(id, &format!(r#"action == Action::"share_{category}""#), "resource"))
}

/// [`OPEN`], except that no other domain sees agencies of this group.
pub fn hiding(group: &str) -> String {
    let resource = format!(r#"resource in Group::"{group}""#);
    format!("{OPEN}\n{}", forbid("hidden", r#"action == Action::"discover""#, &resource))
}

/// [`OPEN`], except that nobody gets a health section.
pub fn without_health() -> String {
    format!("{OPEN}\n{}", forbid("no-health", r#"action == Action::"share_health""#, "resource"))
}

/// [`OPEN`], except that no health section reaches this agency.
pub fn without_health_for(agency: &str) -> String {
    format!(
        "{OPEN}\n{}",
        forbid(
            "no-health-there",
            r#"action == Action::"share_health""#,
            &format!(r#"resource == Agency::"{agency}""#)
        )
    )
}

/// [`OPEN`], except that this agency receives nothing.
pub fn closed_for(agency: &str) -> String {
    format!(
        "{OPEN}\n{}",
        forbid(
            "nothing-there",
            r#"action == Action::"receive""#,
            &format!(r#"resource == Agency::"{agency}""#)
        )
    )
}

/// One `forbid` in Cedar.
pub fn forbid(id: &str, action: &str, resource: &str) -> String {
    format!(
        "@id(\"{id}\") @owner(\"tests\") @legal_basis(\"none\") @explain(\"A test forbids it.\")\n\
         forbid(principal, {action}, {resource});\n"
    )
}

/// Writes the policies that are shipped as examples for a domain.
pub fn examples(domain: &str, folder: &Path) -> Result<PathBuf> {
    liaison_demo::policies::assemble(domain, folder)
}

/// Writes a policy folder whose only layer is the scheme.
pub fn write_scheme(folder: &Path, text: &str) -> Result<PathBuf> {
    write(folder, &[("scheme/test.cedar", text)])
}

/// Writes a policy folder: paths inside it, and the text of each file.
pub fn write(folder: &Path, files: &[(&str, &str)]) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    for (path, text) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, text)?;
    }
    Ok(folder.to_owned())
}
