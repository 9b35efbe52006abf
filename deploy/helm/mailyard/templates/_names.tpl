{{- define "mailyard.name" -}}
{{- printf "%s" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "mailyard.labels" -}}
app.kubernetes.io/name: mailyard
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "mailyard.selector" -}}
app.kubernetes.io/name: mailyard
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "mailyard.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* What every container has: who it is, what it may, and its settings. */}}
{{- define "mailyard.container" -}}
image: {{ include "mailyard.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - configMapRef: {name: {{ include "mailyard.name" .root }}}
  - secretRef: {name: {{ .root.Values.secrets.existing }}}
volumeMounts:
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
  {{- if eq .root.Values.scaling.by "mailyard" }}
  - {name: autoscale, mountPath: /etc/mailyard, readOnly: true}
  {{- end }}
{{- end -}}

{{- define "mailyard.pod" -}}
serviceAccountName: {{ include "mailyard.name" .root }}
automountServiceAccountToken: {{ and (eq .component "scheduler") (eq .root.Values.scaling.by "mailyard") }}
terminationGracePeriodSeconds: {{ .root.Values.terminationGraceSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{- include "mailyard.selector" . | nindent 14 }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "mailyard.selector" . | nindent 8 }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - {name: data, emptyDir: {}}
  - {name: tmp, emptyDir: {}}
  {{- if eq .root.Values.scaling.by "mailyard" }}
  - {name: autoscale, configMap: {name: {{ include "mailyard.name" .root }}-autoscale}}
  {{- end }}
{{- end -}}

{{/* A Deployment of one role. `replicas` is left to whoever scales it after the first time. */}}
{{- define "mailyard.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "mailyard.name" .root }}-{{ .component }}
  labels: {{- include "mailyard.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  {{- if or (eq .component "scheduler") (eq .root.Values.scaling.by "none") }}
  replicas: {{ .values.replicas }}
  {{- end }}
  selector:
    matchLabels: {{- include "mailyard.selector" . | nindent 6 }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  template:
    metadata:
      labels: {{- include "mailyard.selector" . | nindent 8 }}
      annotations:
        checksum/settings: {{ toYaml .root.Values.settings | sha256sum }}
        {{- if eq .role "api" }}
        {{- toYaml .root.Values.podAnnotations | nindent 8 }}
        {{- end }}
    spec: {{- include "mailyard.pod" . | nindent 6 }}
      containers:
        - name: {{ .role }}
          args: [{{ .role }}]
          {{- include "mailyard.container" . | nindent 10 }}
          {{- with .values.lanes }}
          env:
            - {name: MAILYARD_WORKER_LANES, value: {{ join "," . | quote }}}
          {{- end }}
          resources: {{- toYaml .values.resources | nindent 12 }}
          {{- if eq .role "api" }}
          ports:
            - {name: http, containerPort: 8025}
          startupProbe:
            httpGet: {path: /health/live, port: http}
            periodSeconds: 2
            failureThreshold: 30
          livenessProbe:
            httpGet: {path: /health/live, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
          readinessProbe:
            httpGet: {path: /health/ready, port: http}
            periodSeconds: 5
            timeoutSeconds: 5
          lifecycle:
            preStop:  # until no balancer sends anything here
              exec: {command: [sleep, "5"]}
          {{- else if eq .role "smtp" }}
          ports:
            - {name: smtp, containerPort: 2525}
            - {name: submission, containerPort: 2587}
            - {name: submissions, containerPort: 2465}
          startupProbe:
            tcpSocket: {port: smtp}
            periodSeconds: 2
            failureThreshold: 30
          livenessProbe:
            tcpSocket: {port: smtp}
            periodSeconds: 20
          readinessProbe:
            tcpSocket: {port: smtp}
            periodSeconds: 5
          lifecycle:
            preStop:
              exec: {command: [sleep, "5"]}
          {{- end }}
{{- end -}}
