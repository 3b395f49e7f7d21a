//! `hvctl task run`: a command that runs with the VRUs that its task wins, in a cgroup of its own below
//! its instance's, which follows them.

use super::alarm::Alarm;
use super::amount::funds;
use super::door::{Door, Reach, Trouble};
use super::group::Group;
use super::launch::exit_code;
use super::names::{instances, tiers};
use super::output::Output;
use super::task::{Terms, say};
use hvctl::limit::{CPU_PERIOD_US, Knob};
use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use vendue_wire::code::{Resource, TaskEnd};
use vendue_wire::message::*;

/// How often the command is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often the daemon is told what was used.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// `StatusRow.host` of a dry run.
const DRY_RUN: u8 = 1;
/// Joins the group that its first argument names, then becomes the others.
const JOIN: &str = r#"echo 0 > "$0" && exec "$@""#;

/// What to run, and for how much.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Starts the command once the task has VRUs, in the group task-HANDLE below its instance's: cpu.max or \
memory.high are the task's VRUs and follow them, the command stands still while it has none, and moves \
along when the task does. Processes that were in the instance's own group go to `rest` below it. What the \
kernel counts is reported as used, the share of --duration that has passed as progress, and the command's \
end ends the task. Ends with the command's exit code; if the task ends first, the command is killed and \
the code is 1. On a dry-run host there is no group.")]
pub struct TaskRun {
    #[command(flatten)]
    terms: Terms,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The command, running.
struct Running {
    child: Child,
    group: Option<Group>,
    instance: u32,
    since: Instant,
}

/// A task that a command runs for.
struct Task<'a> {
    run: &'a TaskRun,
    door: Door,
    handle: u64,
    duration: Duration,
    dry_run: bool,
    running: Option<Running>,
    /// The daemon said that it has ended.
    over: bool,
    /// Processor time used in groups that were left, microseconds.
    left_us: u64,
}

/// Runs the command; [`Trouble::Ended`] with its exit code once it has ended.
pub fn run(command: &TaskRun, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let (mut door, admitted) = command.terms.submit(reach)?;
    say(&admitted, out)?;
    let status = door.rows::<StatusRow>(&QueryStatus {})?;
    let dry_run = status.first().is_some_and(|status| status.host == DRY_RUN);
    let mut task = Task {
        run: command,
        door,
        handle: admitted.handle.get(),
        duration: command.terms.duration(),
        dry_run,
        running: None,
        over: false,
        left_us: 0,
    };
    let ended = task.follow(&admitted);
    // Whatever happened, nothing of it stays.
    let cleaned = task.clean();
    let code = ended?;
    cleaned?;
    Err(Trouble::Ended(code))
}

impl Task<'_> {
    /// Follows the task until it or its command ends.
    fn follow(&mut self, admitted: &TaskAdmitted) -> Result<u8, Trouble> {
        self.apply(admitted.instance.get(), admitted.vru.get())?;
        // After the start: what the command inherits is as it was.
        let mut alarm = self.running.is_some().then(Alarm::set).transpose()?;
        let mut told = Instant::now();
        loop {
            let Some(frame) = self.door.client.recv(LOOK)?.copied() else {
                if let Some(code) = self.look(&mut told)? {
                    return Ok(code);
                }
                if alarm
                    .as_ref()
                    .is_some_and(|alarm| alarm.wait(None, Duration::ZERO).unwrap_or(true))
                {
                    return Ok(130);
                }
                continue;
            };
            if let Some(changed) = frame.message::<TaskChanged>()
                && changed.handle.get() == self.handle
            {
                self.apply(changed.instance.get(), changed.vru.get())?;
                if alarm.is_none() && self.running.is_some() {
                    alarm = Some(Alarm::set()?);
                }
            }
            if let Some(ended) = frame.message::<TaskEnded>()
                && ended.handle.get() == self.handle
            {
                self.over = true;
                let why = TaskEnd::from_u8(ended.reason).map_or("over", TaskEnd::text);
                let cost = funds(ended.paid_micro.get());
                eprintln!("hvctl: task {} ended: {why}; it cost {cost}", self.handle);
                return Ok(1);
            }
        }
    }

    /// Looks after the command; its exit code once it has ended, when the task is told so.
    fn look(&mut self, told: &mut Instant) -> Result<Option<u8>, Trouble> {
        let Some(running) = &mut self.running else { return Ok(None) };
        let status = running.child.try_wait();
        let status = status.map_err(|error| Trouble::Host(format!("cannot wait: {error}")))?;
        if status.is_none() && told.elapsed() < REPORT_EVERY {
            return Ok(None);
        }
        *told = Instant::now();
        let passed = running.since.elapsed().as_millis() * 1000 / self.duration.as_millis().max(1);
        let progress = if status.is_some() { 1000 } else { passed.min(999) as u16 };
        let message = ReportTask {
            handle: self.handle.into(),
            used_millivru: self.used_millivru()?.into(),
            progress_permille: progress.into(),
            reserved: 0.into(),
        };
        match self.door.call(&message) {
            Ok(_) => self.over = status.is_some(),
            // It has just ended, which is about to be said.
            Err(Trouble::Refused(_)) => {}
            Err(trouble) => return Err(trouble),
        }
        Ok(status.map(exit_code))
    }

    /// Gives the command what the task has.
    fn apply(&mut self, instance: u32, vru: u32) -> Result<(), Trouble> {
        if vru == 0 {
            return self.stand_still(true);
        }
        let place = self.place(instance)?;
        let size = self.vru_size(instance)?;
        match &mut self.running {
            None => self.start(instance, place.as_deref())?,
            Some(running) if running.instance != instance => {
                if let (Some(from), Some(place)) = (&running.group, &place) {
                    let to = Group::make_task(Path::new(place), &name(self.handle))?;
                    from.move_to(&to)?;
                    self.left_us += usage_us(from);
                    running.group.replace(to).map_or(Ok(()), Group::remove)?;
                }
                running.instance = instance;
            }
            Some(_) => {}
        }
        let Some(group) = self.running.as_ref().and_then(|running| running.group.as_ref()) else {
            return Ok(());
        };
        match self.run.terms.resource {
            Resource::Cpu => {
                let quota = u64::from(vru) * size * CPU_PERIOD_US / 1000;
                group
                    .write(Knob::CpuMax.file(), &format!("{} {CPU_PERIOD_US}", quota.max(1000)))?;
            }
            Resource::Memory => {
                group.write(Knob::MemoryHigh.file(), &(u64::from(vru) * size).to_string())?;
            }
            // Granted and paid; below an instance there is no file for it.
            _ => {}
        }
        self.stand_still(false)
    }

    fn stand_still(&self, still: bool) -> Result<(), Trouble> {
        let group = self.running.as_ref().and_then(|running| running.group.as_ref());
        group.map_or(Ok(()), |group| group.write("cgroup.freeze", if still { "1" } else { "0" }))
    }

    /// Where the instance's group is; none on a dry-run host.
    fn place(&mut self, instance: u32) -> Result<Option<String>, Trouble> {
        if self.dry_run {
            return Ok(None);
        }
        let rows = instances(&mut self.door)?;
        let row = rows.iter().find(|row| row.instance.get() == instance);
        let place = row.map(|row| text(&row.place).split(',').next().unwrap_or("").to_owned());
        let place = place.filter(|place| place.starts_with('/'));
        let none = || Trouble::Host(format!("instance {instance} has no cgroup to run a task in"));
        place.map(Some).ok_or_else(none)
    }

    fn vru_size(&mut self, instance: u32) -> Result<u64, Trouble> {
        let rows = instances(&mut self.door)?;
        let tier = rows.iter().find(|row| row.instance.get() == instance).map(|row| row.tier);
        let resource = self.run.terms.resource as u8;
        let tiers = tiers(&mut self.door)?;
        let row = tiers.iter().find(|row| Some(row.tier) == tier && row.resource == resource);
        Ok(row.map_or(1, |row| row.vru_size.get()))
    }

    fn start(&mut self, instance: u32, place: Option<&str>) -> Result<(), Trouble> {
        let group = place
            .map(|place| Group::make_task(Path::new(place), &name(self.handle)))
            .transpose()?;
        let mut command = match &group {
            Some(group) => {
                let mut command = Command::new("sh");
                command.args(["-c", JOIN]).arg(Path::new(group.path()).join("cgroup.procs"));
                command.args(&self.run.command);
                command
            }
            None => {
                let mut command = Command::new(&self.run.command[0]);
                command.args(&self.run.command[1..]);
                command
            }
        };
        match command.spawn() {
            Ok(child) => {
                let since = Instant::now();
                self.running = Some(Running { child, group, instance, since });
                Ok(())
            }
            Err(error) => {
                group.map_or(Ok(()), Group::remove)?;
                let command = self.run.command[0].display();
                Err(Trouble::Host(format!("cannot start {command}: {error}")))
            }
        }
    }

    /// Thousandths of VRUs that the kernel counted on average; all bits set where it counts none.
    fn used_millivru(&mut self) -> Result<u32, Trouble> {
        let Some(running) = &self.running else { return Ok(u32::MAX) };
        let (instance, since) = (running.instance, running.since);
        let Some(group) = &running.group else { return Ok(u32::MAX) };
        let amount = match self.run.terms.resource {
            Resource::Cpu => {
                let used_us = u128::from(self.left_us + usage_us(group));
                used_us * 1000 / since.elapsed().as_micros().max(1)
            }
            Resource::Memory => group.read("memory.current").trim().parse().unwrap_or(0),
            _ => return Ok(u32::MAX),
        };
        let size = u128::from(self.vru_size(instance)?.max(1));
        Ok(u32::try_from(amount * 1000 / size).unwrap_or(u32::MAX - 1))
    }

    /// Kills what is left of the command and removes its group; ends the task if it is not over.
    fn clean(&mut self) -> Result<(), Trouble> {
        if !self.over {
            // Refused where it is over and that was not said yet.
            let _ = self.door.call(&CancelTask { handle: self.handle.into() });
        }
        let Some(mut running) = self.running.take() else { return Ok(()) };
        let removed = running.group.take().map_or(Ok(()), Group::remove);
        // Both fail where it has ended.
        let _ = running.child.kill();
        let _ = running.child.wait();
        removed
    }
}

/// What a task's group is called.
fn name(handle: u64) -> String {
    format!("task-{handle}")
}

fn usage_us(group: &Group) -> u64 {
    let text = group.read("cpu.stat");
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}
