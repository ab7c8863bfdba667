//! The picture in SVG, which a browser shows by itself, and in Graphviz' DOT.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Edge, Graph, Health, Node, NodeKind};

/// Of a node.
const WIDTH: usize = 300;
/// Of a node; a second line of text fits in.
const HEIGHT: usize = 40;
/// Between the rows.
const ROW: usize = 56;
/// Between the columns' left sides.
const COLUMN: usize = 480;
/// Around everything.
const MARGIN: usize = 24;
/// Above the rows: what there is in short.
const HEAD: usize = 72;
/// Characters of a label that fit into a node.
const LABEL_CHARS: usize = 42;
/// What fits between two columns, in characters.
const EDGE_CHARS: usize = 32;
/// Labels of edges to one node; the others are shown when one points at them.
const LABELS_MAX: usize = 2;
/// With more edges than this those on which all is well step back, so that the others are seen; what they say is shown when one points at them.
const CLEAR_EDGES_MAX: usize = 100;
/// Between these.
const LABEL_LINE: usize = 12;

const KINDS: [(NodeKind, &str); 4] =
    [(NodeKind::Frontend, "frontends"), (NodeKind::Route, "routes"), (NodeKind::Backend, "backends"), (NodeKind::Cluster, "clusters")];

fn colour(health: Health) -> &'static str {
    match health {
        Health::Broken => "#b3261e",
        Health::Impaired => "#b26a00",
        Health::Well => "#2e7d32",
    }
}

fn column(kind: NodeKind) -> usize {
    KINDS.iter().position(|(known, _)| *known == kind).unwrap_or_default()
}

/// Left and upper side of each node.
fn places(graph: &Graph) -> BTreeMap<&str, (usize, usize)> {
    let mut rows = [0; KINDS.len()];
    let mut places = BTreeMap::new();
    for node in &graph.nodes {
        let column = column(node.kind);
        places.insert(node.id.as_str(), (MARGIN + column * COLUMN, HEAD + rows[column] * ROW));
        rows[column] += 1;
    }
    places
}

/// As an SVG document.
#[must_use]
pub fn svg(graph: &Graph) -> String {
    let places = places(graph);
    let height = places.values().map(|(_, y)| y + ROW).max().unwrap_or(HEAD) + MARGIN;
    let width = MARGIN * 2 + COLUMN * (KINDS.len() - 1) + WIDTH;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    // Writing into a String cannot fail.
    for (kind, name) in KINDS {
        let (all, ill) = graph.count(kind);
        let x = MARGIN + column(kind) * COLUMN;
        let name = if all == 1 { name.trim_end_matches('s') } else { name };
        let _ = writeln!(text, "<text x=\"{x}\" y=\"32\" font-size=\"18\" font-weight=\"600\" fill=\"#1c1b1f\">{all} {name}</text>");
        if ill > 0 {
            let _ = writeln!(text, "<text x=\"{x}\" y=\"52\" fill=\"{}\">{ill} not well</text>", colour(Health::Broken));
        }
    }
    // What is broken is drawn last, above the rest.
    let mut edges: Vec<&Edge> = graph.edges.iter().collect();
    edges.sort_by_key(|edge| std::cmp::Reverse(edge.health));
    let mut labels: BTreeMap<&str, usize> = BTreeMap::new();
    for edge in edges.iter().rev() {
        *labels.entry(edge.to.as_str()).or_default() += 1;
    }
    for edge in edges {
        if let (Some(from), Some(to)) = (places.get(edge.from.as_str()), places.get(edge.to.as_str())) {
            let line = labels.get_mut(edge.to.as_str()).map(|left| {
                *left -= 1;
                *left
            });
            let steps_back = graph.edges.len() > CLEAR_EDGES_MAX && edge.health == Health::Well;
            svg_edge(&mut text, edge, *from, *to, line.filter(|line| *line < LABELS_MAX && !steps_back), steps_back);
        }
    }
    for node in &graph.nodes {
        if let Some(place) = places.get(node.id.as_str()) {
            svg_node(&mut text, node, *place);
        }
    }
    if graph.nodes.is_empty() {
        let _ = writeln!(text, "<text x=\"{MARGIN}\" y=\"{HEAD}\" fill=\"#49454f\">No route is attached to anything.</text>");
    }
    text + "</svg>\n"
}

fn svg_edge(
    text: &mut String,
    edge: &Edge,
    (from_x, from_y): (usize, usize),
    (to_x, to_y): (usize, usize),
    line: Option<usize>,
    steps_back: bool,
) {
    let (x1, y1, x2, y2) = (from_x + WIDTH, from_y + HEIGHT / 2, to_x, to_y + HEIGHT / 2);
    let middle = x1.midpoint(x2);
    let rate = edge.rate_text();
    let title = joined(&[edge.reason, &edge.label, &rate], ", ");
    let look = match edge.health {
        Health::Well if steps_back => " stroke-opacity=\"0.15\"",
        Health::Well => "",
        Health::Impaired | Health::Broken => " stroke-dasharray=\"6 3\"",
    };
    let _ = writeln!(
        text,
        "<path d=\"M {x1} {y1} C {middle} {y1}, {middle} {y2}, {x2} {y2}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"{look}>\
         <title>{}</title></path>",
        colour(edge.health),
        escaped(&title)
    );
    // How many endpoints a cluster has stands in the backend.
    let is_to_cluster = to_x == MARGIN + column(NodeKind::Cluster) * COLUMN;
    let label = if is_to_cluster { &rate } else { &title };
    if let Some(line) = line.filter(|_| !label.is_empty()) {
        // Near its end, where edges from one node are apart; those to one node above each other, what is broken first.
        let (x, y) = (x2 - 6, y2 - 4 - line * LABEL_LINE);
        let _ = writeln!(
            text,
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\" font-size=\"10\" fill=\"{}\">{}</text>",
            colour(edge.health),
            escaped(&shortened(label, EDGE_CHARS))
        );
    }
}

fn svg_node(text: &mut String, node: &Node, (x, y): (usize, usize)) {
    let full = joined(&[&node.label, &node.detail], ": ");
    let fill = if node.health == Health::Well { "#f5f7f5" } else { "#fdf3f2" };
    let _ = writeln!(
        text,
        "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\" fill=\"{fill}\" stroke=\"{}\"/>",
        escaped(&full),
        colour(node.health)
    );
    let line = if node.detail.is_empty() { y + 24 } else { y + 17 };
    let _ = writeln!(text, "<text x=\"{}\" y=\"{line}\" fill=\"#1c1b1f\">{}</text>", x + 10, escaped(&shortened(&node.label, LABEL_CHARS)));
    if !node.detail.is_empty() {
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{}\" font-size=\"10\" fill=\"{}\">{}</text>",
            x + 10,
            y + 32,
            colour(node.health),
            escaped(&shortened(&node.detail, LABEL_CHARS + 8))
        );
    }
    text.push_str("</g>\n");
}

/// Those that say something.
fn joined(parts: &[&str], between: &str) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(between)
}

/// In the middle, since names differ at both ends.
fn shortened(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let half = (most - 1) / 2;
    let (first, last): (String, String) = (text.chars().take(half).collect(), text.chars().skip(count - half).collect());
    format!("{first}\u{2026}{last}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// For Graphviz.
#[must_use]
pub fn dot(graph: &Graph) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = "digraph isthmus {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n".to_owned();
    for node in &graph.nodes {
        let label = joined(&[&node.label, &node.detail], "\n");
        let _ = writeln!(text, "  {} [label={}, color=\"{}\"];", quoted(&node.id), quoted(&label), colour(node.health));
    }
    for edge in &graph.edges {
        let label = joined(&[&edge.label, edge.reason, &edge.rate_text()], ": ");
        let _ = writeln!(
            text,
            "  {} -> {} [label={}, color=\"{}\"];",
            quoted(&edge.from),
            quoted(&edge.to),
            quoted(&label),
            colour(edge.health)
        );
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_whatever_is_in_them() {
        let node = Node {
            id: "n".to_owned(),
            kind: NodeKind::Route,
            label: "<a & \"b\">".to_owned(),
            detail: String::new(),
            health: Health::Well,
        };
        let graph = Graph { nodes: vec![node], edges: Vec::new() };
        assert!(svg(&graph).contains("&lt;a &amp; &quot;b&quot;&gt;"));
        assert!(dot(&graph).contains(r#"label="<a & \"b\">""#));
    }

    #[test]
    fn where_there_is_much_what_is_well_steps_back() {
        let node = |kind, id: String| Node { label: id.clone(), id, kind, detail: String::new(), health: Health::Well };
        let edge = |number: usize, health| Edge {
            from: format!("f{number}"),
            to: format!("r{number}"),
            label: format!("label-{number}"),
            health,
            reason: "",
            rate: None,
        };
        for (count, is_crowded) in [(CLEAR_EDGES_MAX, false), (CLEAR_EDGES_MAX + 1, true)] {
            let kinds = [(NodeKind::Frontend, "f"), (NodeKind::Route, "r")];
            let nodes = kinds.into_iter().flat_map(|(kind, name)| (0..count).map(move |number| node(kind, format!("{name}{number}"))));
            let edges = (0..count).map(|number| edge(number, if number == 0 { Health::Broken } else { Health::Well }));
            let picture = svg(&Graph { nodes: nodes.collect(), edges: edges.collect() });
            assert_eq!(picture.contains("stroke-opacity"), is_crowded);
            // In the title of the edge, and beside it.
            assert_eq!(picture.matches(">label-0<").count(), 2, "what is broken has its label");
            assert_eq!(picture.matches(">label-1<").count(), if is_crowded { 1 } else { 2 });
        }
    }

    #[test]
    fn what_does_not_fit_is_shortened_in_the_middle() {
        assert_eq!(shortened("short", 9), "short");
        assert_eq!(shortened("ServiceImport/shop", 9), "Serv\u{2026}shop");
    }
}
