package serviceimport

import (
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// What every mesh that takes ServiceImports must do.
const (
	// A ServiceImport can be the parent and a backend of routes (GEP-1748, GEP-1294 "Extended Conformance").
	SupportMeshServiceImport features.FeatureName = "MeshServiceImport"
)

// What a mesh may do besides, where the specifications say how.
const (
	// A frontend is known by the ClusterSetIP that is dialled, whatever Host says (GEP-1748, GEP-1294).
	SupportMeshServiceImportClusterSetIPMatching features.FeatureName = "MeshServiceImportClusterSetIPMatching"
	// A route in another namespace than the ServiceImport's is for clients of the route's namespace alone (GEP-1294).
	SupportMeshServiceImportConsumerRoute features.FeatureName = "MeshServiceImportConsumerRoute"
	// The port of a parentRef is one of the ServiceImport's ports; its other ports are left alone (GEP-1294).
	SupportMeshServiceImportParentRefPort features.FeatureName = "MeshServiceImportParentRefPort"
	// Clusters get requests to a ServiceImport in proportion to their ready endpoints (KEP-1645: "spread across all endpoints").
	SupportMeshServiceImportEndpointShares features.FeatureName = "MeshServiceImportEndpointShares"
	// A backend without ready endpoints is answered with 503 (HTTPRoute API, a SHOULD).
	SupportMeshServiceImportNoEndpoints features.FeatureName = "MeshServiceImportNoEndpoints"
	// Nothing is inferred from hostnames of a route (GEP-1294, a SHOULD NOT).
	SupportMeshServiceImportHostnamesIgnored features.FeatureName = "MeshServiceImportHostnamesIgnored"
	// Of a GRPCRoute and an HTTPRoute on one port the GRPCRoute is in force and the other one is not accepted (GEP-1294).
	SupportMeshServiceImportRouteKindConflict features.FeatureName = "MeshServiceImportRouteKindConflict"
	// A backendRef may name a ServiceImport of any namespace without a ReferenceGrant (GEP-1294's wider reading).
	SupportMeshServiceImportCrossNamespaceBackend features.FeatureName = "MeshServiceImportCrossNamespaceBackend"
	// A route follows its ServiceImport when that comes, goes and comes back (KEP-1645).
	SupportMeshServiceImportLifecycle features.FeatureName = "MeshServiceImportLifecycle"
	// The MCS provider leaves ServiceImports alone that it has not made, so that a test can be the provider of its own.
	SupportServiceImportUnmanaged features.FeatureName = "ServiceImportUnmanaged"
)

// What the specifications leave open, by who has decided it. Another mesh may have decided otherwise.
const (
	// The port of a backendRef to a ServiceImport can be left out: it is the dialled one, else the only one.
	SupportPortlessBackend features.FeatureName = "isthmus.dev/PortlessBackend"
	// The sectionName of a parentRef is the name of a port of the ServiceImport.
	SupportServiceImportSectionName features.FeatureName = "isthmus.dev/ServiceImportSectionName"
	// A backend in a namespace that is neither the route's nor the parent's needs a ReferenceGrant.
	SupportReferenceGrantRequired features.FeatureName = "isthmus.dev/ReferenceGrantRequired"
	// A parent that is missing, headless or without ClusterSetIP has an entry in status, with reason NoMatchingParent.
	SupportMissingParentStatus features.FeatureName = "isthmus.dev/MissingParentStatus"
	// A rule whose backends all have weight 0 is answered with 500.
	SupportZeroWeights features.FeatureName = "isthmus.dev/ZeroWeights"
	// Routes of a ServiceImport and of the Service that holds its ClusterSetIP are one group.
	SupportDerivedService features.FeatureName = "isthmus.dev/DerivedService"
	// A backend whose import says that it has no EndpointSlices is dialled at its ClusterSetIP.
	SupportEndpointSliceObjects features.FeatureName = "isthmus.dev/EndpointSliceObjects"
)

// ProfileName is that of the profile in which the suite reports.
const ProfileName suite.ConformanceProfileName = "MESH-SERVICEIMPORT"

// Portable are the features that any mesh and MCS provider can be asked for.
var Portable = sets.New(
	SupportMeshServiceImportClusterSetIPMatching,
	SupportMeshServiceImportConsumerRoute,
	SupportMeshServiceImportParentRefPort,
	SupportMeshServiceImportEndpointShares,
	SupportMeshServiceImportNoEndpoints,
	SupportMeshServiceImportHostnamesIgnored,
	SupportMeshServiceImportRouteKindConflict,
	SupportMeshServiceImportCrossNamespaceBackend,
	SupportMeshServiceImportLifecycle,
	SupportServiceImportUnmanaged,
	features.SupportGRPCRoute,
	features.SupportHTTPRouteMethodMatching,
	features.SupportHTTPRouteParentRefPort,
)

var decided = sets.New(
	SupportPortlessBackend,
	SupportServiceImportSectionName,
	SupportReferenceGrantRequired,
	SupportMissingParentStatus,
	SupportZeroWeights,
	SupportDerivedService,
	SupportEndpointSliceObjects,
)

// profile has a place for what of the decided is claimed; what is not claimed is not held against anybody.
func profile(claimed []features.FeatureName) suite.ConformanceProfile {
	extended := Portable.Clone()
	for _, feature := range claimed {
		if decided.Has(feature) {
			extended.Insert(feature)
		}
	}
	return suite.ConformanceProfile{
		Name:             ProfileName,
		CoreFeatures:     sets.New(features.SupportMesh, features.SupportHTTPRoute, SupportMeshServiceImport),
		ExtendedFeatures: extended,
	}
}
