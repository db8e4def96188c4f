//! Whether a gateway of many agencies and policies carries as much as one of few.

use anyhow::Result;
use liaison_demo::Programs;
use serde_json::json;

use crate::{
    gateway::{GatewayAlone, crowd},
    limits,
    round::Load,
    system::Ground,
    turns::{self, Side},
};

/// Runs it and prints what it came to. Both have those that send; the others of the many stand in the directory with
/// their keys.
pub(crate) async fn run(load: Load, json: bool) -> Result<()> {
    let (programs, ground) = (Programs::beside_this_one()?, Ground::new()?);
    let connections = load.connections;
    let folder = ground.folder("few")?;
    let few = GatewayAlone::under(&programs, &folder, connections, limits::FEW_POLICIES).await?;
    let folder = ground.folder("many")?;
    let many = GatewayAlone::under(&programs, &folder, connections, limits::MANY_POLICIES).await?;
    eprintln!("enrolling {} agencies", limits::MANY_AGENCIES);
    crowd::enrol(many.gateway(), limits::MANY_AGENCIES - connections).await?;
    let about = json!({ "agencies": limits::MANY_AGENCIES, "policies": limits::MANY_POLICIES });
    let (few, many) = (Side::new("gateway_few", few), Side::new("gateway_many", many));
    turns::tell((few, many), about, &load, json).await
}
