//! `nodes`, `drain`, `undrain`: the machines of a cluster.

use lockstep_proto::wire;

use crate::client::{self, At};
use crate::output::{Format, table};

/// List the machines: those whose daemons are connected, and those that are drained.
#[derive(Debug, clap::Args)]
pub(crate) struct NodesArgs {
    #[command(flatten)]
    at: At,
}

/// Start no new ranks on a machine, until `lockstep undrain`: to take it out of service.
///
/// Remembered by the coordinator, also while the machine is away. Ranks that run there go on: stop its daemon when you are
/// ready, and their jobs go on with the others.
#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    at: At,
    /// The machine's name, as in `lockstep nodes`.
    node: String,
}

/// Let a machine have ranks again that was drained, or whose slots are in quarantine.
#[derive(Debug, clap::Args)]
pub(crate) struct UndrainArgs {
    #[command(flatten)]
    at: At,
    /// The machine's name, as in `lockstep nodes`.
    node: String,
}

/// A machine for programs.
#[derive(serde::Serialize)]
struct Shown {
    node: String,
    connected: bool,
    address: Option<String>,
    /// Of its ranks' data plane; by default the address that leads to the coordinator.
    interface: Option<String>,
    slots: u32,
    used: u32,
    drained: bool,
    /// Slots that are not used any more, as their ranks gave wrong results.
    quarantined: u32,
    /// Since its daemon was heard of.
    silent_ms: Option<u64>,
}

impl From<wire::Node> for Shown {
    fn from(node: wire::Node) -> Self {
        let named = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            node: node.name,
            connected: node.connected,
            address: named(node.address),
            interface: named(node.interface),
            slots: node.slots,
            used: node.used,
            drained: node.drained,
            quarantined: node.quarantined,
            silent_ms: node.connected.then_some(node.silent_ms),
        }
    }
}

pub(crate) async fn list(args: NodesArgs, format: Format) -> anyhow::Result<()> {
    let mut client = client::connect(&args.at.coordinators).await?;
    let nodes = client.nodes(wire::NodesRequest {}).await?.into_inner().nodes;
    let shown: Vec<Shown> = nodes.into_iter().map(Shown::from).collect();
    format.print(&shown, |nodes| {
        let dash = || "-".to_owned();
        let rows = nodes.iter().map(|node| {
            let interface = node.interface.clone().or_else(|| node.address.clone());
            [
                node.node.clone(),
                node.address.clone().unwrap_or_else(dash),
                interface.unwrap_or_else(dash),
                format!("{}/{}", node.used, node.slots),
                if node.drained { "yes" } else { "no" }.to_owned(),
                node.quarantined.to_string(),
                node.silent_ms
                    .map_or("away".to_owned(), |silent| format!("{silent} ms ago")),
            ]
        });
        table(
            [
                "node",
                "address",
                "data interface",
                "used",
                "drained",
                "quarantined",
                "heard",
            ],
            rows,
        )
    })
}

pub(crate) async fn drain(args: DrainArgs, format: Format) -> anyhow::Result<()> {
    set(&args.at, args.node, true, format).await
}

pub(crate) async fn undrain(args: UndrainArgs, format: Format) -> anyhow::Result<()> {
    set(&args.at, args.node, false, format).await
}

async fn set(at: &At, node: String, drained: bool, format: Format) -> anyhow::Result<()> {
    let mut client = client::connect(&at.coordinators).await?;
    let request = wire::DrainRequest { node, drained };
    let node = client.drain(request).await?.into_inner();
    format.print(&Shown::from(node), |node| {
        let (name, used) = (&node.node, node.used);
        match (node.drained, used) {
            (true, 0) => format!("{name} is drained"),
            (true, _) => format!("{name} is drained: it gets no new ranks; {used} still run there"),
            (false, _) => format!("{name} may have ranks again"),
        }
    })
}
