//! `hvctl instance sensors`: how instances fare, between their last two samples.

use super::door::{Door, Trouble};
use super::names::{Directory, find_instance};
use super::output::Output;
use super::table::{left, right};
use super::time::rfc3339;
use hvctl::json::{self, narrow, wide};
use vendue_wire::message::*;

/// Shows all instances that are measured, or one.
pub fn show(only: Option<&str>, door: &mut Door, out: &mut Output) -> Result<(), Trouble> {
    let names = Directory::read(door)?;
    let only = only.map(|wanted| find_instance(wanted, &names.instances)).transpose()?;
    let rows = door.pages::<SensorRow, _>(|from| QuerySensors { from: from.into() })?;
    let mut list = out.list(&[
        left("INSTANCE"),
        right("CPU"),
        right("WAITED"),
        right("THROTTLED"),
        right("MEMORY"),
        right("STALLED"),
        right("REFAULTS/S"),
        right("READ/S"),
        right("WRITTEN/S"),
        right("IO STALLED"),
        right("NETWORK/S"),
        right("DROPPED"),
        right("IO WAIT"),
        right("DEVICE"),
        right("NET DELAY"),
        right("VCPUS"),
        right("EXITS/S"),
        right("HALTED"),
        left("SAMPLED"),
    ]);
    for row in rows.iter().filter(|row| only.is_none_or(|only| row.instance.get() == only)) {
        list.object(&json::sensors(row))?;
        list.cells(cells(row, &names));
    }
    Ok(list.show()?)
}

fn cells(row: &SensorRow, names: &Directory) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let count = |field| or_dash(narrow(field).map(|value| value.to_string()));
    let percent = |field| or_dash(narrow(field).map(|of| format!("{}.{}%", of / 10, of % 10)));
    let micros = |field| or_dash(narrow(field).map(|us| format!("{us} us")));
    let kib = |field| or_dash(wide(field).map(|bytes| format!("{} KiB", bytes >> 10)));
    vec![
        names.instance(row.instance.get()),
        or_dash(narrow(row.cpu_millicores).map(|millicores| format!("{millicores}m"))),
        percent(row.cpu_wait_permille),
        percent(row.throttled_permille),
        kib(row.memory_bytes),
        percent(row.memory_some_permille),
        count(row.refaults_per_s),
        kib(row.read_bytes_per_s),
        kib(row.write_bytes_per_s),
        percent(row.io_some_permille),
        kib(row.network_bytes_per_s),
        or_dash(wide(row.network_drops).map(|drops| drops.to_string())),
        micros(row.io_wait_us),
        percent(row.device_permille),
        micros(row.network_delay_us),
        count(row.vcpus),
        count(row.exits_per_s),
        percent(row.halt_permille),
        rfc3339(row.time_ns.get()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_not_measured_is_no_number() {
        let row = SensorRow {
            cpu_millicores: 250.into(),
            cpu_wait_permille: 123.into(),
            memory_bytes: (3 << 20).into(),
            throttled_permille: u32::MAX.into(),
            memory_some_permille: u32::MAX.into(),
            network_drops: UNKNOWN.into(),
            ..SensorRow::zeroed()
        };
        let object = json::sensors(&row);
        let shown = ["cpu_millicores", "memory_bytes", "reads_per_s"].map(|key| &object[key]);
        assert_eq!(shown, [&json!(250), &json!(3 << 20), &json!(0)]);
        assert!(object["throttled_permille"].is_null() && object["network_drops"].is_null());
        let cells = cells(&row, &Directory::default());
        assert_eq!(cells[1..7], ["250m", "12.3%", "-", "3072 KiB", "-", "0"]);
        assert_eq!(cells[10..12], ["0 KiB", "-"]);
    }
}
