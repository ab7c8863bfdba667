//! What is measured, and that measuring is bounded.

use http::Version;
use lab::client::{Ask, Connection};
use tests::yaml;

use super::store::{STORE, bed, metric};

#[test]
fn hosts_and_paths_make_no_series() {
    let bed = bed(&[yaml::to_import("/cart", "store")], Vec::new());
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("an address");
    let ask = |first: u32, count: u32| {
        let asked = async {
            let mut connection = Connection::open(address, Version::HTTP_11).await?;
            for number in first..first + count {
                // Half of them have a route.
                let prefix = if number % 2 == 0 { "/cart" } else { "/other" };
                connection.ask(&Ask::get(&format!("host-{number}.example"), &format!("{prefix}/{number}?q={number}"))).await?;
            }
            anyhow::Ok(())
        };
        bed.namespace(&client).expect("a namespace").block_on(|| asked).expect("answers");
    };
    let requests = |count: u32| {
        let labels = "frontend=\"ServiceImport/default/store/80\",route=\"default/store\",rule=\"0\"";
        format!(
            "isthmus_sidecar_requests_total{{{labels},backend=\"ServiceImport/default/store/80\",source_cluster=\"west\",status=\"200\",reason=\"\"}} {count}"
        )
    };
    let series = || bed.sidecar_admin(&client, "/metrics").expect("metrics").lines().count();
    ask(0, 2);
    metric(&bed, &requests(1));
    let before = series();
    ask(2, 10_000);
    metric(&bed, &requests(5_001));
    assert_eq!(series(), before, "10,000 Hosts and as many paths");
}
