//! Endpoints that ask for groups of instances and their tasks.

use super::problem::Problem;
use super::read::{Nothing, array, pages};
use super::route::{Route, get, list_of};
use hvctl::json::swarm as show;
use serde_json::Value;
use vendue_wire::client::Client;
use vendue_wire::code::RESOURCES;
use vendue_wire::message::*;

/// All of them.
pub fn routes() -> Vec<Route> {
    let [groups, members] =
        [list_of(|row| show::group(row, 0)), list_of(|row| show::member(row, 0))];
    vec![
        get(
            "/swarms",
            "Groups of instances whose VRUs tasks win: a row for each resource",
            groups,
            swarms_of,
        ),
        get("/members", "Instances of groups, and what their next VRUs cost", members, members_of),
        get(
            "/tasks",
            "Tasks: what they have won, their margins and costs",
            list_of(show::task),
            tasks,
        ),
    ]
}

fn swarms_of(client: &mut Client, _: Nothing) -> Result<Value, Problem> {
    let rows: Vec<GroupRow> = pages(client, |from| QueryGroups { from })?;
    let offered = |row: &GroupRow| -> Vec<Value> {
        let at = (0..RESOURCES).filter(|&at| row.base_micro[at].get() > 0);
        at.map(|at| show::group(row, at)).collect()
    };
    Ok(rows.iter().flat_map(offered).collect::<Vec<_>>().into())
}

fn members_of(client: &mut Client, _: Nothing) -> Result<Value, Problem> {
    let rows: Vec<MemberRow> = pages(client, |from| QueryMembers { from })?;
    let offered = |row: &MemberRow| -> Vec<Value> {
        let at = (0..RESOURCES).filter(|&at| row.price_micro[at].get() > 0);
        at.map(|at| show::member(row, at)).collect()
    };
    Ok(rows.iter().flat_map(offered).collect::<Vec<_>>().into())
}

fn tasks(client: &mut Client, _: Nothing) -> Result<Value, Problem> {
    let rows: Vec<TaskRow> = pages(client, |from| QueryTasks { from })?;
    Ok(array(&rows, show::task))
}
