//! Policy sets for tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// Where tests keep their scheme inside a policy folder.
pub const SCHEME: &str = "scheme/test.cedar";

/// Everything is permitted, everybody is known to every domain, and nothing needs a person's release.
pub const OPEN: &str = r#"
@id("open-message") @owner("tests") @legal_basis("none") @explain("Every message may go to everybody.")
permit(principal, action in [Action::"submit", Action::"receive"], resource);

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

@id("open-directory") @owner("tests") @legal_basis("none") @explain("Every domain may know every agency.")
permit(principal, action == Action::"discover", resource);
"#;

/// [`OPEN`], except that nobody gets a health section.
pub fn without_health() -> String {
    without("health")
}

/// [`OPEN`], except that nobody gets sections of a category, by the rule `no-<category>`.
pub fn without(category: &str) -> String {
    let action = format!(r#"action == Action::"share_{category}""#);
    format!("{OPEN}\n{}", forbid(&format!("no-{category}"), &action, "resource"))
}

/// [`OPEN`], except that no other domain knows of agencies in the group `hidden`.
pub fn hiding() -> String {
    let rule = forbid("hidden", r#"action == Action::"discover""#, r#"resource in Group::"hidden""#);
    format!("{OPEN}\n{rule}")
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

/// The policies that are shipped as examples.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies")
}

/// Writes a policy folder whose only layer is the scheme.
pub fn write_scheme(folder: &Path, text: &str) -> Result<PathBuf> {
    write(folder, &[(SCHEME, text)])
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
