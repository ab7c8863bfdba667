//! The compiled routes of a frontend: sorted once, then the first match wins.

use std::sync::Arc;

use crate::matcher::{Mismatch, RequestHead};
use crate::model::{Frontend, Route, RouteMatch, Rule};
use crate::precedence::Precedence;

/// The matches of a frontend in their order of precedence; compile once, select per request.
#[derive(Debug)]
pub struct RouteTable {
    frontend: Arc<Frontend>,
    order: Vec<Position>,
}

/// Where a match stands in its frontend: `routes[route].rules[rule].matches[matched]`. Valid for the table that gave it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Position {
    /// Index into `Frontend::routes`.
    pub route: usize,
    /// Index into `Route::rules`, not the rule's index in the object.
    pub rule: usize,
    /// Index into `Rule::matches`.
    pub matched: usize,
}

/// What a request selected.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'t> {
    /// The route.
    pub route: &'t Route,
    /// The rule in it.
    pub rule: &'t Rule,
    /// The match that the request satisfied.
    pub matched: &'t RouteMatch,
    /// The same in numbers, for a caller that keeps the table by `Arc` and looks again with [`RouteTable::at`].
    pub position: Position,
}

impl RouteTable {
    /// Sorts the frontend's matches.
    #[must_use]
    pub fn compile(frontend: Arc<Frontend>) -> Self {
        let mut ranked: Vec<(Precedence, Position)> = Vec::new();
        for (route_index, route) in frontend.routes.iter().enumerate() {
            for (rule_index, rule) in route.rules.iter().enumerate() {
                for (matched_index, matched) in rule.matches.iter().enumerate() {
                    let position = Position { route: route_index, rule: rule_index, matched: matched_index };
                    ranked.push((Precedence::of(route, rule, matched_index, matched), position));
                }
            }
        }
        ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self { order: ranked.into_iter().map(|(_, position)| position).collect(), frontend }
    }

    /// What was compiled.
    #[must_use]
    pub fn frontend(&self) -> &Frontend {
        &self.frontend
    }

    /// The match of highest precedence that accepts the request; none: no rule matches (404, GEP-1294).
    #[must_use]
    pub fn select(&self, head: &RequestHead<'_>) -> Option<Selection<'_>> {
        self.verdicts(head).find(|(_, mismatch)| mismatch.is_none()).map(|(selection, _)| selection)
    }

    /// Every match in its order of precedence, and what the request lacks for it. The first that lacks nothing is selected.
    pub fn verdicts<'t>(&'t self, head: &RequestHead<'_>) -> impl Iterator<Item = (Selection<'t>, Option<Mismatch<'t>>)> {
        self.in_order().map(|selection| (selection, selection.matched.mismatch(head)))
    }

    /// Every match in its order of precedence.
    pub fn in_order(&self) -> impl Iterator<Item = Selection<'_>> {
        self.order.iter().filter_map(|position| self.at(*position))
    }

    /// The selection at a position that this table gave.
    #[must_use]
    pub fn at(&self, position: Position) -> Option<Selection<'_>> {
        let route = self.frontend.routes.get(position.route)?;
        let rule = route.rules.get(position.rule)?;
        Some(Selection { route, rule, matched: rule.matches.get(position.matched)?, position })
    }
}
