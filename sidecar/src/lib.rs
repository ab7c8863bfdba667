//! The data plane: takes redirected connections, obeys routes, forwards to endpoints.
