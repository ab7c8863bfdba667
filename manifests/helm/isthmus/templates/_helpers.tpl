{{- define "isthmus.labels" -}}
app.kubernetes.io/name: isthmus-controller
app.kubernetes.io/part-of: isthmus
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}
{{- define "isthmus.image" -}}
{{ .root.Values.image.repository }}/{{ .name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}
