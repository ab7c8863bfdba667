package clusterset

import (
	"fmt"
	"io/fs"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

// Ordinals stand for the clusters in names of objects, where their ids cannot: an id may have dots.
const (
	First  = "first"
	Second = "second"
)

// A ClusterSet of two clusters.
type ClusterSet struct {
	First, Second *Cluster
	options       Options
}

// Cluster is one of them.
type Cluster struct {
	ID            string // in the ClusterSet
	Ordinal       string
	Config        *rest.Config
	Client        client.Client
	ClientOptions client.Options
	// The version of the MCS API that the cluster prefers. v1alpha1 and v1beta1 have the same fields.
	mcsVersion string
}

// Connect makes clients for both clusters and finds out which version of the MCS API each serves.
func Connect(options Options) (*ClusterSet, error) {
	first, err := connect(options, 0, First)
	if err != nil {
		return nil, err
	}
	second, err := connect(options, 1, Second)
	if err != nil {
		return nil, err
	}
	return &ClusterSet{First: first, Second: second, options: options}, nil
}

func connect(options Options, index int, ordinal string) (*Cluster, error) {
	context := options.Contexts[index]
	access, err := config.GetConfigWithContext(context)
	if err != nil {
		return nil, fmt.Errorf("context %s: %w", context, err)
	}
	// Without a limit of the client's own, which would make up most of the set-up's time.
	access.QPS = -1
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientscheme.AddToScheme, apiextensionsv1.AddToScheme, gatewayv1.Install} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	clientOptions := client.Options{Scheme: scheme}
	kubernetes, err := client.New(access, clientOptions)
	if err != nil {
		return nil, fmt.Errorf("context %s: %w", context, err)
	}
	mapping, err := kubernetes.RESTMapper().RESTMapping(schema.GroupKind{Group: mcs.GroupName, Kind: mcs.ServiceImportKindName})
	if err != nil {
		return nil, fmt.Errorf("context %s: the MCS API: %w", context, err)
	}
	return &Cluster{
		ID:            options.IDs[index],
		Ordinal:       ordinal,
		Config:        access,
		Client:        kubernetes,
		ClientOptions: clientOptions,
		mcsVersion:    mapping.GroupVersionKind.Version,
	}, nil
}

func (set *ClusterSet) clusters() []*Cluster {
	return []*Cluster{set.First, set.Second}
}

// Name is that of a ServiceImport in the DNS of the ClusterSet.
func (set *ClusterSet) Name(service, namespace string) string {
	return strings.Join([]string{service, namespace, "svc", set.options.DNSDomain}, ".")
}

// ImportTimeout is how long the MCS provider may take.
func (set *ClusterSet) ImportTimeout() time.Duration {
	return set.options.ImportTimeout
}

// Manifests are those of a folder with what depends on the cluster and on the options filled in.
func (set *ClusterSet) Manifests(cluster *Cluster, folder fs.FS, more ...string) fs.FS {
	return filledIn{folder, strings.NewReplacer(append(more,
		"PLACEHOLDER_CLUSTER_ID", cluster.ID,
		"PLACEHOLDER_ORDINAL", cluster.Ordinal,
		"PLACEHOLDER_ECHO_IMAGE", set.options.EchoImage,
		"PLACEHOLDER_MCS_VERSION", cluster.mcsVersion,
	)...)}
}

// filledIn is a file system whose files have their placeholders replaced; fs.ReadFile finds its method.
type filledIn struct {
	fs.FS
	values *strings.Replacer
}

func (files filledIn) ReadFile(name string) ([]byte, error) {
	raw, err := fs.ReadFile(files.FS, name)
	if err != nil {
		return nil, err
	}
	return []byte(files.values.Replace(string(raw))), nil
}
