//! Which cgroups are containers and which are system: the caller's word, looked up by path.

/// What a row is to others whose CPU its threads hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A container: it is a neighbour to the others.
    Container,
    /// Outside any pod: daemons of the node, kernel threads.
    System,
}

/// A row of the result: a cgroup with all below it that is not a row of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The cgroup's path from the hierarchy's root, by which the row is named.
    pub path: String,
    /// Container or system.
    pub role: Role,
}

/// The rows that the caller asks for; all the rest, kernel threads too, falls to the row `/`, which is system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    rows: Vec<Row>,
}

impl Default for Assignment {
    fn default() -> Self {
        Self { rows: vec![Row { path: "/".to_owned(), role: Role::System }] }
    }
}

impl Assignment {
    /// Adds a container at this path, its sub-cgroups included.
    #[must_use]
    pub fn container(self, path: &str) -> Self {
        self.with(path, Role::Container)
    }

    /// Adds a row of its own for a cgroup that counts as system to the others.
    #[must_use]
    pub fn system(self, path: &str) -> Self {
        self.with(path, Role::System)
    }

    fn with(mut self, path: &str, role: Role) -> Self {
        let path = match path.trim_end_matches('/') {
            "" => "/".to_owned(),
            path => path.to_owned(),
        };
        self.rows.retain(|row| row.path != path);
        self.rows.push(Row { path, role });
        self
    }

    /// The row of a cgroup: the deepest one whose path is the cgroup's or an ancestor's.
    ///
    /// The row `/` is always there, so every path has one.
    #[must_use]
    pub fn row_of(&self, path: &str) -> &Row {
        let deepest =
            self.rows.iter().filter(|row| is_within(path, &row.path)).max_by_key(|row| row.path.len());
        deepest.unwrap_or(&self.rows[0])
    }
}

fn is_within(path: &str, ancestor: &str) -> bool {
    ancestor == "/"
        || path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_row_wins_and_the_rest_is_system() {
        let assignment =
            Assignment::default().container("/pods/a").system("/pods/a/helper").container("/pods/ab/");
        let row = |path| assignment.row_of(path).path.as_str();
        assert_eq!(row("/pods/a"), "/pods/a");
        assert_eq!(row("/pods/a/inner/deep"), "/pods/a");
        assert_eq!(row("/pods/a/helper/x"), "/pods/a/helper");
        assert_eq!(row("/pods/ab"), "/pods/ab", "a longer name is not a child");
        assert_eq!(row("/system.slice"), "/");
        assert_eq!(assignment.row_of("/").role, Role::System);
    }
}
