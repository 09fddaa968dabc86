//! What the person at the terminal has chosen, and what each key does to it. Pure: keys and views in, an [`Action`]
//! out.

use std::cmp::Ordering;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::history::History;
use super::model::{Key, Row, View, by_hurt};

/// So many rows a page key moves.
const PAGE: isize = 10;

/// By what the table is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Wait that somebody could do something about, per second; then the 99th percentile.
    #[default]
    Hurt,
    /// 99th percentile.
    P99,
    /// Share of throttled periods.
    Throttled,
    /// CPU used.
    Used,
    /// Name.
    Name,
}

impl Sort {
    const ALL: [Self; 5] = [Self::Hurt, Self::P99, Self::Throttled, Self::Used, Self::Name];

    /// What is said of it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hurt => "what hurts",
            Self::P99 => "p99",
            Self::Throttled => "throttled",
            Self::Used => "CPU used",
            Self::Name => "name",
        }
    }

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let descending = |a: Option<f64>, b: Option<f64>| b.unwrap_or(-1.0).total_cmp(&a.unwrap_or(-1.0));
        let first = match self {
            Self::Hurt => Ordering::Equal,
            Self::P99 => b.window.p99().cmp(&a.window.p99()),
            Self::Throttled => descending(a.window.throttled_share(), b.window.throttled_share()),
            Self::Used => descending(a.used_cores, b.used_cores),
            Self::Name => a.name.whole().cmp(&b.name.whole()),
        };
        first.then_with(|| by_hurt(a, b))
    }
}

/// What keys go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The table.
    #[default]
    Table,
    /// The filter, which is being written.
    Filter,
    /// The page of help.
    Help,
}

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing but to show the state.
    Show,
    /// End.
    Quit,
}

/// Everything that is shown, and how.
#[derive(Debug, Default)]
pub struct State {
    /// The last window; `None` before the first has ended.
    pub view: Option<View>,
    /// The windows before it.
    pub history: History,
    /// What keys go to.
    pub mode: Mode,
    /// By what the table is sorted.
    pub sort: Sort,
    /// Only names with this in them are shown, in any case of letters.
    pub filter: String,
    /// New windows are not shown.
    pub paused: bool,
    /// A recording is shown, and has come to its end.
    pub ended: bool,
    /// The row that was chosen; without one it is the first, whichever that is.
    chosen: Option<Key>,
}

impl State {
    /// Takes in a new window.
    pub fn show(&mut self, view: View) {
        self.history.push(&view.rows);
        self.view = Some(view);
    }

    /// The rows that pass the filter, in the order in which they are shown.
    pub fn visible(&self) -> Vec<&Row> {
        let wanted = self.filter.to_lowercase();
        let all = self.view.iter().flat_map(|view| &view.rows);
        let mut rows: Vec<_> = all.filter(|row| row.name.whole().to_lowercase().contains(&wanted)).collect();
        rows.sort_by(|a, b| self.sort.compare(a, b));
        rows
    }

    /// Which of the visible rows is selected; 0 where the chosen one is not among them.
    pub fn selected(&self, visible: &[&Row]) -> usize {
        self.chosen.and_then(|key| visible.iter().position(|row| row.key == key)).unwrap_or(0)
    }

    /// What a key does.
    pub fn on_key(&mut self, key: KeyEvent) -> Action {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Action::Quit } else { Action::Show };
        }
        match self.mode {
            Mode::Table => return self.on_table_key(key.code),
            Mode::Filter => self.on_filter_key(key.code),
            Mode::Help => self.mode = Mode::Table,
        }
        Action::Show
    }

    fn on_table_key(&mut self, key: KeyCode) -> Action {
        match key {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Esc if self.filter.is_empty() => self.chosen = None,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Down | KeyCode::Char('j') => self.choose(1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(-1),
            KeyCode::PageDown => self.choose(PAGE),
            KeyCode::PageUp => self.choose(-PAGE),
            KeyCode::End | KeyCode::Char('G') => self.choose(isize::MAX),
            KeyCode::Home | KeyCode::Char('g') => self.choose(isize::MIN),
            _ => {}
        }
        Action::Show
    }

    fn on_filter_key(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.mode = Mode::Table,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Table;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(one) if !one.is_control() => self.filter.push(one),
            KeyCode::Down => self.choose(1),
            KeyCode::Up => self.choose(-1),
            _ => {}
        }
    }

    /// Chooses the row so many below the selected one.
    fn choose(&mut self, below: isize) {
        let visible = self.visible();
        let last = visible.len().saturating_sub(1);
        let row = self.selected(&visible).saturating_add_signed(below).min(last);
        self.chosen = visible.get(row).map(|row| row.key);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn press(state: &mut State, keys: &[KeyCode]) -> Action {
        keys.iter().fold(Action::Show, |_, key| state.on_key(KeyEvent::from(*key)))
    }

    fn write(state: &mut State, text: &str) {
        text.chars().for_each(|one| assert_eq!(press(state, &[KeyCode::Char(one)]), Action::Show));
    }

    fn names(state: &State) -> Vec<String> {
        state.visible().iter().map(|row| row.name.within(4)).collect()
    }

    fn selected(state: &State) -> Option<Key> {
        let visible = state.visible();
        visible.get(state.selected(&visible)).map(|row| row.key)
    }

    fn key_of(state: &State, row: usize) -> Option<Key> {
        state.visible().get(row).map(|row| row.key)
    }

    #[test]
    fn q_and_control_c_end_it_and_a_q_in_the_filter_does_not() {
        let mut state = fixture::state();
        assert_eq!(press(&mut state, &[KeyCode::Char('q')]), Action::Quit);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        for before in ["", "/", "?"] {
            let mut state = fixture::state();
            write(&mut state, before);
            assert_eq!(state.on_key(control_c), Action::Quit);
        }
        write(&mut state, "/q");
        assert_eq!(state.filter, "q");
    }

    #[test]
    fn the_filter_is_of_any_case_and_escape_clears_it() {
        let mut state = fixture::state();
        write(&mut state, "/SHOPx");
        press(&mut state, &[KeyCode::Backspace, KeyCode::Enter]);
        assert_eq!(
            (state.mode, names(&state)),
            (Mode::Table, vec!["che…".into(), "web…".into(), "car…".into()])
        );
        press(&mut state, &[KeyCode::Esc]);
        assert_eq!((state.filter.as_str(), state.visible().len()), ("", 12));
        write(&mut state, "/x");
        press(&mut state, &[KeyCode::Esc]);
        assert_eq!((state.filter.as_str(), state.mode), ("", Mode::Table));
    }

    #[test]
    fn s_goes_round_all_orders() {
        let mut state = fixture::state();
        let mut first = Vec::new();
        for _ in Sort::ALL {
            first.push((state.sort, names(&state)[..3].join(" ")));
            write(&mut state, "s");
        }
        assert_eq!(
            first,
            [
                (Sort::Hurt, "che… rep… web…".into()),
                (Sort::P99, "che… pod… car…".into()),
                (Sort::Throttled, "che… car… pod…".into()),
                (Sort::Used, "rep… web… che…".into()),
                (Sort::Name, "(ro… mig… rep…".into()),
            ]
        );
        assert_eq!(state.sort, Sort::Hurt);
    }

    #[test]
    fn the_selection_stays_on_its_row_wherever_that_goes() {
        let mut state = fixture::state();
        assert_eq!(selected(&state), key_of(&state, 0));
        press(&mut state, &[KeyCode::Down, KeyCode::Char('j'), KeyCode::Up]);
        let chosen = key_of(&state, 1);
        assert_eq!(selected(&state), chosen);
        write(&mut state, "ssss");
        assert_eq!(selected(&state), chosen);
        press(&mut state, &[KeyCode::End, KeyCode::Down]);
        assert_eq!(selected(&state), key_of(&state, 11));
        press(&mut state, &[KeyCode::PageUp]);
        assert_eq!(selected(&state), key_of(&state, 1));
        press(&mut state, &[KeyCode::Home, KeyCode::Char('k')]);
        assert_eq!(selected(&state), key_of(&state, 0));
    }

    #[test]
    fn without_a_choice_the_worst_is_selected_and_escape_goes_back_to_that() {
        let mut state = fixture::state();
        press(&mut state, &[KeyCode::Down]);
        press(&mut state, &[KeyCode::Esc]);
        write(&mut state, "s");
        assert_eq!(selected(&state), key_of(&state, 0));
    }

    #[test]
    fn a_row_that_is_gone_is_selected_no_longer() {
        let mut state = fixture::state();
        press(&mut state, &[KeyCode::Down]);
        let mut view = state.view.clone().unwrap();
        view.rows.remove(1);
        state.show(view);
        assert_eq!(selected(&state), key_of(&state, 0));
        state.show(View { rows: Vec::new(), ..state.view.clone().unwrap() });
        press(&mut state, &[KeyCode::Down, KeyCode::End]);
        assert_eq!(selected(&state), None);
    }

    #[test]
    fn any_key_closes_the_help_and_p_goes_on_and_off() {
        let mut state = fixture::state();
        write(&mut state, "?q");
        assert_eq!(state.mode, Mode::Table);
        write(&mut state, "p");
        assert!(state.paused);
        write(&mut state, "p");
        assert!(!state.paused);
    }
}
