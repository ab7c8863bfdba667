// Package serviceimport is a conformance suite for meshes that take a ServiceImport as parent and as backend of routes (GEP-1748,
// GEP-1294), in two clusters of a ClusterSet. It needs a mesh in both and some provider of the MCS API (KEP-1645).
//
// A test is a Go file and a manifest of the same name, as in the Gateway API's own suite, and uses that suite's machinery.
package serviceimport

import (
	"embed"
	"io/fs"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
	clientset "k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/gateway-api/conformance/utils/config"
	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/flags"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/yaml"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

// The namespaces of the suite, in both clusters.
const (
	Namespace         = "gateway-conformance-serviceimport"
	ConsumerNamespace = Namespace + "-consumer"
	ForeignNamespace  = Namespace + "-foreign"
)

// ClientApp are pods from which requests are made, in the first cluster.
const ClientApp echo.MeshApplication = "app=client"

// ConformanceTests are all tests of the suite.
var ConformanceTests []suite.ConformanceTest

//go:embed *.yaml
var manifests embed.FS

var (
	// Exported Services of the pods of `store`, each for one test, so that no other sees what it may leave behind for a while.
	frontends []string
	// Upstream's suite knows one cluster, the first; tests find the other here.
	clusters *clusterset.ClusterSet
)

func register(test suite.ConformanceTest, testFrontends ...string) {
	ConformanceTests = append(ConformanceTests, test)
	frontends = append(frontends, testFrontends...)
}

// RunConformance runs the suite as the flags say: upstream's, and those of package clusterset.
func RunConformance(t *testing.T) {
	log.SetLogger(zap.New(zap.WriteTo(os.Stderr), zap.UseDevMode(true)))
	options, err := clusterset.FromFlags()
	require.NoError(t, err)
	clusters, err = clusterset.Connect(options)
	require.NoError(t, err)

	configurable := configurableOptions(t)
	suite.RegisterConformanceProfile(profile(configurable.SupportedFeatures))
	kubernetes, err := clientset.NewForConfig(clusters.First.Config)
	require.NoError(t, err)
	table := &summary{}
	s, err := suite.NewConformanceTestSuite(suite.ConformanceOptions{
		ConfigurableOptions: configurable,
		Client:              clusters.First.Client,
		ClientOptions:       clusters.First.ClientOptions,
		Clientset:           kubernetes,
		RestConfig:          clusters.First.Config,
		ManifestFS:          []fs.FS{clusters.Manifests(clusters.First, manifests)},
		Hook:                table.add,
	})
	require.NoError(t, err)
	s.Applier.ManifestFS = s.ManifestFS
	if s.RunTest != "" {
		known := slices.ContainsFunc(ConformanceTests, func(test suite.ConformanceTest) bool { return test.ShortName == s.RunTest })
		require.Truef(t, known, "there is no test %s", s.RunTest)
	}

	// Written when all tests and their cleaning up are over.
	t.Cleanup(func() {
		table.write(t)
		report, err := s.Report()
		require.NoError(t, err)
		writeReport(t, report, configurable.ReportOutputPath)
	})
	clusters.Setup(t, s, base())
	table.start()
	require.NoError(t, s.Run(t, ConformanceTests))
}

// The flags of upstream's suite mean here what they mean there, but that this suite's own profile is what is run.
func configurableOptions(t *testing.T) suite.ConfigurableOptions {
	options := suite.ConfigurableOptions{
		CleanupBaseResources: flags.DefaultCleanupBaseResources,
		CleanupTestResources: flags.DefaultCleanupTestResources,
		Mode:                 flags.DefaultMode,
		TimeoutConfig:        config.DefaultTimeoutConfig(),
	}
	if *flags.ConformanceOptionsFile != "" {
		raw, err := os.ReadFile(*flags.ConformanceOptionsFile)
		require.NoError(t, err)
		require.NoError(t, yaml.Unmarshal(raw, &options))
	}
	flags.ApplyAll(&options)
	options.ConformanceProfiles = []suite.ConformanceProfileName{ProfileName}
	if options.EnableAllSupportedFeatures {
		// All that upstream knows would be meant otherwise, and none of this suite's.
		options.EnableAllSupportedFeatures = false
		options.SupportedFeatures = Portable.UnsortedList()
	}
	// Features are never inferred from a GatewayClass; none claimed means the core ones.
	options.SupportedFeatures = append(options.SupportedFeatures, SupportMeshServiceImport)
	if options.ReportOutputPath != "" {
		require.NoError(t, options.Implementation.Validate())
	}
	return options
}

// base is what manifests.yaml, first.yaml, second.yaml and frontend.yaml make, and what must come of their exports.
func base() clusterset.Base {
	first, second, both := []string{clusterset.First}, []string{clusterset.Second}, []string{clusterset.First, clusterset.Second}
	exports := []clusterset.Export{
		{NamespacedName: in(Namespace, "store"), From: both},
		{NamespacedName: in(Namespace, "store-first"), From: first},
		{NamespacedName: in(Namespace, "store-second"), From: second},
		{NamespacedName: in(Namespace, "cart"), From: both},
		{NamespacedName: in(Namespace, "uneven"), From: both},
		{NamespacedName: in(Namespace, "sole"), From: both},
		{NamespacedName: in(Namespace, "ambiguous"), From: both},
		{NamespacedName: in(Namespace, "empty")},
		{NamespacedName: in(Namespace, "headless"), Headless: true},
		{NamespacedName: in(ForeignNamespace, "bar"), From: second},
	}
	for _, frontend := range frontends {
		exports = append(exports, clusterset.Export{NamespacedName: in(Namespace, frontend), From: both})
	}
	return clusterset.Base{
		Folder:     manifests,
		Everywhere: "manifests.yaml",
		InFirst:    "first.yaml",
		InSecond:   "second.yaml",
		Frontend:   "frontend.yaml",
		Namespaces: []string{Namespace, ConsumerNamespace, ForeignNamespace},
		Frontends:  frontends,
		Exports:    exports,
	}
}

func in(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}
