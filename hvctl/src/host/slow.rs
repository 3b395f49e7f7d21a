//! The part of a host that is slow to write: memory's limits, which the kernel takes only once it has
//! reclaimed what is too much.

use super::{ALL_TIERS, Backend, Host, Options};
use crate::limit::Knob;
use vendue_wire::code::Resource;

/// Writes of one turn on the slow part, after which what is wanted anew is seen.
const WRITES_PER_TURN_MAX: u32 = 4;

impl Host {
    /// Splits memory's limits off into a host of their own, for another thread; see
    /// [`crate::lane::MemoryLane`]. Groups are still made and removed by this one. `None` where memory
    /// is not limited, and where nothing is slow: in a dry run, and with huge pages in its place, which
    /// are not reclaimed. To be called before anything is
    /// adopted.
    pub fn split_memory(&mut self) -> Option<Host> {
        // What the whole host is set to may be there from the beginning.
        let held = self.instances.range(..ALL_TIERS).next();
        assert!(held.is_none(), "a host is split before it holds instances");
        let Backend::Cgroup(groups) = &self.backend else { return None };
        if groups.names.limits[Knob::MemoryHigh.slot()] != Knob::MemoryHigh.file() {
            return None;
        }
        let at = self.resources.iter().position(|&resource| resource == Resource::Memory)?;
        let options = Options { writes_per_turn_max: WRITES_PER_TURN_MAX, ..self.options };
        let mut slow = Host::new(Backend::Cgroup(groups.clone()), &[Resource::Memory], options);
        slow.is_part = true;
        slow.page_bytes = self.page_bytes;
        self.resources.remove(at);
        Some(slow)
    }

    /// Whose limits are due at `now_ns`, are to be read back, or have a fault: those that a turn or a
    /// verification may change.
    pub fn unsettled(&self, now_ns: u64) -> impl Iterator<Item = u32> {
        let unread = self.unread.iter().map(|&(number, _)| number);
        unread.chain(self.schedule.due(now_ns)).chain(self.schedule.faulty())
    }
}
