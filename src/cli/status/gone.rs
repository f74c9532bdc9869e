//! Nodes that were here and are gone.

use adit::admin::GoneNode;

use super::View;
use super::units::{age, count, more};
use crate::cli::table::table;

const MAX_ROWS: usize = 10;

pub(super) fn show(gone: &[GoneNode], view: View) -> String {
    let rows = gone.iter().take(if view.all { usize::MAX } else { MAX_ROWS });
    let rows: Vec<_> = rows
        .map(|node| {
            [node.node.clone(), node.cluster.clone(), node.tenant.clone(), age(node.since_seconds), node.reason.clone()]
        })
        .collect();
    let heading = ["NODE", "CLUSTER", "TENANT", "FOR", "WHY ITS LAST TUNNEL ENDED"];
    format!(
        "\n{} gone\n{}{}",
        count(gone.len(), "node"),
        table(heading, &rows, view.width, &[0, 1, 2, 4]),
        more(gone.len() - rows.len(), "more node")
    )
}
