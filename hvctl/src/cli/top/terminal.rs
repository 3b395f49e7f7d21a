//! The terminal: taken over, and given back as it was whatever happens.

use nix::sys::signal::{Signal, raise};
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{DefaultTerminal, Terminal, prelude::CrosstermBackend};
use std::io::{self, stdout};

/// A panicked program's exit code.
const PANICKED: i32 = 101;

/// A terminal that is drawn on. Dropping it gives it back.
#[derive(Debug)]
pub struct Screen {
    /// What draws.
    pub terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal over: another screen, no cursor, and keys one by one. From now on a panic on
    /// any thread gives it back, says what it is, and ends the program.
    ///
    /// # Errors
    /// The terminal does not let itself be driven.
    pub fn take() -> io::Result<Screen> {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            told(panic);
            // Whoever draws would go on where the shell is now.
            std::process::exit(PANICKED);
        }));
        Ok(Screen { terminal: begin()? })
    }

    /// Gives the terminal to the shell until that lets this program go on.
    ///
    /// # Errors
    /// The terminal cannot be taken over again.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        raise(Signal::SIGTSTP)?;
        self.terminal = begin()?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// What draws on the other screen, which is empty.
fn begin() -> io::Result<DefaultTerminal> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, Clear(ClearType::All), Hide)?;
    Terminal::new(CrosstermBackend::new(stdout()))
}

/// A terminal that is gone needs nothing back.
fn give_back() {
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
}
